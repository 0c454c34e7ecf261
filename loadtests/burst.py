"""A closed load of chats for some seconds, in a process of its own; prints one JSON object (`figures.Burst`).

    .venv.loadtest/bin/python -m loadtests.burst URL --streams 32 --seconds 8 --tokens 64 [--plain] [--wait]

Every stream asks again as soon as it is answered; after the time is up none asks again, and the last answers are
waited for. --wait: say `ready` and begin when a line comes on stdin, so that a caller can take its own readings.
"""

import argparse
import dataclasses
import json
import sys
import time

import gevent

from loadtests.comparison.figures import to_burst
from loadtests.load.client import Client
from loadtests.load.events import Outcome
from loadtests.load.scenarios import chat, plain_chat

TEMPERATURE = 0.7
READY = "ready"


def main() -> None:
    options = parse_arguments()
    clients = [Client(options.url, options.key, options.timeout) for _ in range(options.streams)]
    if options.wait:
        print(READY, flush=True)
        sys.stdin.readline()
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    until_s = begin_s + options.seconds
    streams = [gevent.spawn(ask_until, until_s, client, options) for client in clients]
    gevent.joinall(streams, raise_error=True)
    elapsed_s, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
    outcomes = [outcome for stream in streams for outcome in stream.value]
    print(json.dumps(dataclasses.asdict(to_burst(outcomes, elapsed_s, cpu_s, options.tokens))))


def ask_until(until_s: float, client: Client, options: argparse.Namespace) -> list[Outcome]:
    """Ask one request after the other, at least one."""
    make = plain_chat if options.plain else chat
    outcomes: list[Outcome] = []
    while not outcomes or time.perf_counter() < until_s:
        ask = make(options.model, options.tokens)
        outcomes.append(client.send("POST", ask.path, {**ask.body, "temperature": TEMPERATURE}))
    client.close()
    return outcomes


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--key", default="", help="API key")
    parser.add_argument("--streams", type=int, default=32, help="requests at once")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--plain", action="store_true", help="answers that are not streamed")
    parser.add_argument("--wait", action="store_true", help="begin when a line comes on stdin")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds without a byte")
    return parser.parse_args()


if __name__ == "__main__":
    main()
