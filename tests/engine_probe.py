"""A process that asks engines over Serve's handles: engine_probe.py RAY_ADDRESS; questions in, answers out, JSON lines.

A process of its own, because what Serve keeps in a driver's process does not survive a change of clusters.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

import ray
from ray import serve

from deployments.types import HttpRequest, Usage

PREFIX = "ANSWER "
TIMEOUT_S = 30


def stats(app: str) -> Any:
    return dataclasses.asdict(serve.get_deployment_handle("Engine", app).stats.remote().result(timeout_s=TIMEOUT_S))


def grammars(app: str) -> Any:
    """Return what each replica's engine core has done with constraints."""
    handle = serve.get_deployment_handle("Engine", app)
    return [dataclasses.asdict(one) for one in handle.broadcast("grammars").results(timeout_s=TIMEOUT_S)]


def compiler() -> Any:
    handle = serve.get_deployment_handle("GuidedCompiler", "guided")
    return dataclasses.asdict(handle.stats.remote().result(timeout_s=TIMEOUT_S))


def cost(app: str, path: str, body: str) -> Any:
    """Send a request as the gateway does; return the body's text and the Usage that comes after it."""
    handle = serve.get_deployment_handle("Engine", app).options(method_name="stream_http", stream=True)
    headers = ((b"content-type", b"application/json"),)
    items = list(handle.remote(HttpRequest("POST", path, b"", headers, body.encode())))
    usage = [item for item in items if isinstance(item, Usage)]
    assert usage == items[-1:], "Usage must be the last item, and there must be one"
    text = b"".join(item for item in items if isinstance(item, bytes)).decode()
    return {"text": text, "usage": dataclasses.asdict(usage[0])}


QUESTIONS: dict[str, Callable[..., Any]] = {"stats": stats, "cost": cost, "grammars": grammars, "compiler": compiler}


def main() -> None:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error", namespace="serve")
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(PREFIX + json.dumps(QUESTIONS[name](*arguments)), flush=True)


if __name__ == "__main__":
    main()
