"""What the policy in front of the routes costs: the same application with and without it, in one process.

    python -m loadtests.middleware_latency [REQUESTS]

Prints the median seconds of a plain chat request (an engine that answers at once, a key with limits) for both, in
alternating rounds, and what the policy adds; then what reading and checking the body costs within that.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.types import ASGIApp, Message

from config.models import GatewaySettings
from deployments.analysis_types import AnalysisRequest
from deployments.engine.directory import Model
from deployments.ingress.api import create_api
from deployments.ingress.parsing import parse_object
from deployments.ingress.services import Response
from deployments.ingress.validation import validate
from deployments.types import HttpHead, HttpRequest, ModelInfo, Usage

KEY = "sk-0123456789abcdef0123456789"
PATH = "/v1/chat/completions"
BODY = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 8})
FIELDS = "model messages max_tokens temperature stream n stop tools".split()
ROUNDS = 20


class Answer:
    head = HttpHead(200, ((b"content-type", b"application/json"),))
    usage: Usage | None = Usage(10, 8)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"choices": []}'

    def cancel(self) -> None:
        pass


class Engine:
    async def open(self, request: HttpRequest) -> Answer:
        return Answer()

    async def probe(self) -> float:
        return 0.0


def facts() -> ModelInfo:
    schema: dict[str, Any] = {"properties": {name: {} for name in FIELDS}}
    request = {"requestBody": {"content": {"application/json": {"schema": schema}}}}
    document = json.dumps({"paths": {PATH: {"post": request}}})
    return ModelInfo("demo", 4096, 0, "none", frozenset({PATH}), 4096, document)


class Tokenizer:
    async def open(self, request: AnalysisRequest) -> Response:
        raise AssertionError("nobody asks it here")


class Models:
    def __init__(self) -> None:
        self._model = Model("demo", "running", Engine(), facts())  # type: ignore[arg-type]  # it needs no handle

    def models(self) -> Mapping[str, Any]:
        return {"demo": self._model}


def make_apps() -> tuple[ASGIApp, ASGIApp]:
    """Return the application with its policy, and without."""
    limits = {"requests_per_minute": 10**9, "tokens_per_minute": 10**12, "concurrent_requests": 1000}
    settings = GatewaySettings.model_validate({"auth": {"inference_keys": KEY, "default_limits": limits}})
    guarded, bare = (create_api(Models(), settings, Tokenizer()) for _ in range(2))
    bare.user_middleware.clear()
    return guarded, bare


async def request_s(app: ASGIApp) -> float:
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {KEY}".encode())]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode()}
    scope |= {"query_string": b"", "headers": headers, "state": {}, "root_path": "", "scheme": "http"}
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": BODY.encode(), "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    begin = time.perf_counter()
    await app(scope, receive, send)
    took_s = time.perf_counter() - begin
    assert status == 200, status
    return took_s


async def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    guarded, bare = make_apps()
    times: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(ROUNDS):
        for name, app in (("with", guarded), ("without", bare)):
            times[name] += [await request_s(app) for _ in range(requests // ROUNDS)]
    medians = {name: statistics.median(values) for name, values in times.items()}
    added_s = medians["with"] - medians["without"]
    print(f"with policy {medians['with'] * 1e6:.0f} us, without {medians['without'] * 1e6:.0f} us")
    print(f"added: {added_s * 1e6:.0f} us a request, median of {requests}")
    print(f"reading and checking the body: {checking_s(requests) * 1e6:.0f} us of both")


def checking_s(rounds: int) -> float:
    limits, info, body = GatewaySettings().limits, facts(), BODY.encode()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        validate(PATH, parse_object(body, limits), info, limits)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


if __name__ == "__main__":
    asyncio.run(main())
