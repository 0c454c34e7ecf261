"""Every request is counted when it has ended, and has a latency budget that begins before anything else is done."""

import asyncio
from collections.abc import Awaitable, Collection
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.errors import ServingError
from deployments.ingress.budget import Budget, budget_of

LEFT = "client_left"


class Recorder(Protocol):
    def count(self, route: str, model: str, status: int, error: str) -> None:
        """Take a request that has ended: model "" when none was looked for, status 0 when the client left before."""

    def record(self, budget: Budget) -> None:
        """Take where the time of a request went that a model has answered to the end."""


class Observing:
    """Leave a Budget in `scope["state"]["budget"]`, and tell a Recorder of each request.

    Whoever knows them leaves the model's name in `state["model"]` and the error that was answered in `state["error"]`;
    what an engine has refused itself has its status only. `paths` and `prefixes` are the routes that exist: what a
    client makes up must not become a tag.
    """

    def __init__(
        self, app: ASGIApp, recorder: Recorder | None, paths: Collection[str], prefixes: tuple[str, ...]
    ) -> None:
        self.app = app
        self.recorder = recorder
        self.paths = frozenset(paths)
        self.prefixes = prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self.recorder is None:
            await self.app(scope, receive, send)
            return
        status = 0

        def watched_send(message: Message) -> Awaitable[None]:
            # No coroutine of its own: this is called for every chunk.
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        budget = budget_of(scope)
        state = scope["state"]
        error = ServingError.type
        try:
            await self.app(scope, receive, watched_send)
            error = code_of(state.get("error"))
        except asyncio.CancelledError:
            error = LEFT
            raise
        finally:
            self.recorder.count(self._route(scope["path"]), state.get("model", ""), status, error)
        if budget.model and budget.total_s is not None:
            self.recorder.record(budget)

    def _route(self, path: str) -> str:
        if path in self.paths:
            return path
        prefix = next((prefix for prefix in self.prefixes if path.startswith(prefix)), None)
        return f"{prefix}*" if prefix else "other"


def code_of(error: ServingError | None) -> str:
    return (error.code or error.type) if error is not None else ""
