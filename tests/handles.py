"""Handles of Serve whose answers are scripted."""

import asyncio
from collections.abc import Generator
from typing import Any

from ray.exceptions import ActorUnavailableError, RayTaskError

from deployments.types import HttpHead

HEAD = HttpHead(200, ())
LOST = ActorUnavailableError("gone", b"0" * 16)
WAIT = object()
"""In a script: nothing comes until the call is cancelled."""


class Items:
    """A handle's streamed response: yields its script, raises what is an error, waits at WAIT."""

    def __init__(self, script: list[Any]) -> None:
        self.script = script
        self.cancelled = asyncio.Event()

    async def __anext__(self) -> Any:
        if not self.script:
            raise StopAsyncIteration
        item = self.script.pop(0)
        if item is WAIT:
            await self.cancelled.wait()
            raise asyncio.CancelledError
        if isinstance(item, Exception):
            raise item
        return item

    def cancel(self) -> None:
        self.cancelled.set()


class Handle:
    """A handle whose calls answer with one script after the other."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.calls = [Items(script) for script in scripts]
        self.sent = 0

    def remote(self, request: object) -> Items:
        self.sent += 1
        return self.calls[self.sent - 1]


class Answer(Items):
    """A handle's response that comes as a whole."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.__anext__().__await__()


class AnswerHandle:
    """A handle whose calls answer with one item after the other: a value, an error, or WAIT."""

    def __init__(self, *items: object) -> None:
        self.calls = [Answer([item]) for item in items]
        self.requests: list[object] = []

    def remote(self, request: object) -> Answer:
        self.requests.append(request)
        return self.calls[len(self.requests) - 1]


def from_replica(error: Exception) -> Exception:
    """Return an error as a handle raises what a replica raised."""
    raised: Exception = RayTaskError("method", "Traceback", error).as_instanceof_cause()
    return raised
