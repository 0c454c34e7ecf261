"""How many requests are under way at once."""

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.errors import OverloadedError


class Admission:
    """Refuse requests beyond a bound, at once: what waits without one only makes everybody late."""

    def __init__(self, app: ASGIApp, max_concurrent_requests: int, retry_after_s: int) -> None:
        self.app = app
        self.free = max_concurrent_requests
        self.retry_after_s = retry_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/health":
            await self.app(scope, receive, send)
            return
        if self.free < 1:
            raise OverloadedError("The server has too many requests under way. Retry later.", None, self.retry_after_s)
        self.free -= 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.free += 1
