"""Which routes exist: everything else is answered 404 before anything looks at the request."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.errors import NotFoundError


class AllowList:
    """Let through exact paths and whatever begins with a prefix; web sockets never.

    vLLM's application has control and development routes, so in front of it this list is what keeps them shut.
    """

    def __init__(self, app: ASGIApp, paths: Collection[str], prefixes: tuple[str, ...] = ()) -> None:
        self.app = app
        self.paths = frozenset(paths)
        self.prefixes = prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http":
            path = scope["path"]
            if path not in self.paths and not path.startswith(self.prefixes):
                raise NotFoundError(f"There is no route `{path[:200]}`.")
        await self.app(scope, receive, send)
