"""The process that asks vLLM's parser: questions and answers are lines of JSON, on stdin and stdout.

Importing vLLM takes seconds and hundreds of megabytes, which no other process should pay for a parser. It ends when
stdin does, so when its parent does, even while it works. With arguments it prints vLLM's help instead.
"""

import json
import os
import queue
import sys
import threading
import traceback
from dataclasses import asdict
from typing import Any, BinaryIO

from deployments.errors import InternalError, ServingError

HELP = """\
Serve a model with vLLM on Ray: the flags are those of `vllm serve`. --host, --port and --api-key (as often as you like)
are the gateway's; what else belongs to vLLM's HTTP server is ignored, with a word on stderr; --config is refused."""


def main() -> None:
    if sys.argv[1:]:
        print_help(sys.argv[1:])
        return
    # vLLM prints where answers go: from here on that is stderr.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    questions: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(questions,), daemon=True).start()
    while True:
        write(answers, answer(json.loads(questions.get())))


def _listen(questions: "queue.SimpleQueue[bytes]") -> None:
    for line in sys.stdin.buffer:
        questions.put(line)
    os._exit(0)


def write(answers: BinaryIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Answer `{"number", "do", "about"}` by `{"number", "value"}` or `{"number", "error", "message"}`."""
    number = question["number"]
    try:
        return {"number": number, "value": _value(question["do"], question["about"])}
    except ServingError as error:
        return {"number": number, "error": type(error).__name__, "message": error.message}
    except Exception:  # a fault of ours, told as such
        traceback.print_exc()
        return {"number": number, "error": InternalError.__name__, "message": ""}


def _value(what: str, about: Any) -> Any:
    if what == "version":
        from vllm.version import __version__

        return __version__
    from deployments.engine import serve_command
    from deployments.engine.shell_words import split_words

    if what == "parse":
        return asdict(serve_command.parse(about))
    if what == "command_of":
        return serve_command.command_of(about)
    reading = serve_command.read_words(split_words(about) if isinstance(about, str) else about)
    serve_command.refuse_unknown(reading.parsed.extra_args)
    return {**asdict(reading), "command": serve_command.command_of(reading.parsed.backend_options)}


def print_help(words: list[str]) -> None:
    """Print vLLM's help, ours on top: all of it for `--help`, a part for `--help=ModelConfig`."""
    from deployments.engine.command import Parser, fill_parser

    parser = fill_parser(Parser(prog="vllm-graph serve", usage="vllm-graph serve MODEL [options]", description=HELP))
    parser.parse_args(["--help=all" if word in ("-h", "--help") else word for word in words])


if __name__ == "__main__":
    main()
