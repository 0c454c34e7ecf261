"""Load on any OpenAI-compatible server; `make loadtest` runs a short one against a server that it starts.

locust -f loadtests/locustfile.py --headless -H http://127.0.0.1:8000 -u 32 -t 60s --mix chat:8,highlights:1
"""

import itertools
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import gevent
from locust import LoadTestShape, User, events, task
from locust.runners import WorkerRunner

from loadtests.client import Client
from loadtests.events import Outcome
from loadtests.metrics import Limits, Totals, record, save, summary, verdict
from loadtests.scenarios import CHAT, SCENARIOS, Ask, Body, parse_mix, question
from loadtests.shapes import arrivals, users_at

TOTALS = Totals()
SEEDS = itertools.count(1)
TURNS = 6
"""Of a conversation, after which another one begins."""


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    group = parser.add_argument_group("what is asked, and what must come out")
    group.add_argument("--model", default="", help="default: the first one that the server lists")
    group.add_argument("--key", default=os.environ.get("VLLM_GRAPH_KEY", ""), help="API key [VLLM_GRAPH_KEY]")
    group.add_argument(
        "--mix", default="chat", help=f"such as chat:8,highlights:1; of conversation, {', '.join(SCENARIOS)}"
    )
    group.add_argument("--max-tokens", type=int, default=64, help="of each answer that is text")
    group.add_argument(
        "--arrival",
        choices=("closed", "constant", "poisson"),
        default="closed",
        help="closed: a user waits for each answer",
    )
    group.add_argument("--rate", type=float, default=10.0, help="requests per second of an open arrival")
    group.add_argument("--shape", choices=("constant", "ramp", "step", "spike", "soak"), default="constant")
    group.add_argument("--request-timeout", type=float, default=300.0, help="seconds")
    group.add_argument("--ttft-limit", type=float, default=10.0, help="seconds to the first text of a good request")
    group.add_argument("--min-goodput", type=float, default=0.95, help="share of good requests, or the run fails")
    group.add_argument("--max-error-rate", type=float, default=0.01, help="share of failed requests, or the run fails")
    group.add_argument("--summary", default="", help="JSON file for the figures")


def limits_of(options: Any) -> Limits:
    return Limits(options.ttft_limit, options.min_goodput, options.max_error_rate)


class Shape(LoadTestShape):
    """As many users as --users and --shape say, for --run-time."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        options = self.runner.environment.parsed_options
        users = users_at(options.shape, self.get_run_time(), options.run_time or float("inf"), options.num_users or 1)
        return None if users is None else (users, float(options.num_users or 1))


class Asking(User):
    """One user: closed, the next request comes after the last answer; open, requests come when they are due."""

    def on_start(self) -> None:
        options = self.environment.parsed_options
        self._options = options
        self._mix = parse_mix(options.mix)
        self._model = options.model or first_model(self.host, options.key)
        self._history: list[Body] = []
        self._idle = [self._connect()]
        self._random = random.Random(next(SEEDS))

    def on_stop(self) -> None:
        for client in self._idle:
            client.close()

    @task
    def ask(self) -> None:
        if self._options.arrival == "closed":
            TOTALS.offered += 1
            self._send(self._next())
        else:
            self._ask_when_due()

    def _ask_when_due(self) -> None:
        share = self._options.rate / (self._options.num_users or 1)
        begin_s = time.monotonic()
        for due_s in arrivals(share, self._options.arrival == "poisson", self._random):
            gevent.sleep(max(0.0, begin_s + due_s - time.monotonic()))
            TOTALS.offered += 1
            gevent.spawn(self._send, self._next())

    def _next(self) -> Ask:
        (name,) = self._random.choices(list(self._mix), list(self._mix.values()))
        if name != "conversation":
            return SCENARIOS[name](self._model, self._options.max_tokens)
        if len(self._history) >= 2 * TURNS:
            self._history = []
        self._history.append({"role": "user", "content": question()})
        body = {"model": self._model, "messages": list(self._history), "max_tokens": self._options.max_tokens}
        return Ask("conversation", CHAT, body | {"stream": True, "stream_options": {"include_usage": True}})

    def _send(self, ask: Ask) -> None:
        client = self._idle.pop() if self._idle else self._connect()
        outcome = client.send("POST", ask.path, ask.body, keeps_text=ask.name == "conversation")
        if ask.name == "guided, hostile" and 400 <= outcome.status < 500:
            outcome.error = ""  # being refused is what it is for
        if ask.name == "conversation" and not outcome.error:
            self._history.append({"role": "assistant", "content": outcome.text})
        record(self.environment, TOTALS, ask.name, outcome, limits_of(self._options))
        self._idle.append(client)

    def _connect(self) -> Client:
        return Client(self.host, self._options.key, self._options.request_timeout)


def first_model(base_url: str, key: str) -> str:
    client = Client(base_url, key, 30.0)
    outcome: Outcome = client.send("GET", "/v1/models")
    client.close()
    if outcome.error:
        sys.exit(f"{base_url} does not list its models: {outcome.error}")
    return str(json.loads(outcome.body)["data"][0]["id"])


@events.report_to_master.add_listener
def report(client_id: str, data: Body) -> None:
    with TOTALS.lock:
        data["totals"] = [TOTALS.offered, TOTALS.sent, TOTALS.good, TOTALS.tokens, TOTALS.errors]
        TOTALS.offered = TOTALS.sent = TOTALS.good = TOTALS.tokens = 0
        TOTALS.errors = {}


@events.worker_report.add_listener
def add_up(client_id: str, data: Body) -> None:
    offered, sent, good, tokens, errors = data["totals"]
    TOTALS.offered += offered
    TOTALS.sent += sent
    TOTALS.good += good
    TOTALS.tokens += tokens
    for error, count in errors.items():
        TOTALS.errors[error] = TOTALS.errors.get(error, 0) + count


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    parse_mix(environment.parsed_options.mix)
    TOTALS.begin_s = time.monotonic()


@events.quitting.add_listener
def end(environment: Any, **_: Any) -> None:
    if isinstance(environment.runner, WorkerRunner):
        return
    options = environment.parsed_options
    figures = summary(environment, TOTALS)
    print(json.dumps({name: value for name, value in figures.items() if name != "rows"}, indent=2))
    if options.summary:
        save(Path(options.summary), figures)
    missed = verdict(figures, limits_of(options))
    if missed:
        print(f"FAILED: {missed}", file=sys.stderr)
    environment.process_exit_code = 1 if missed else 0
