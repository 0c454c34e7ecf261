"""Every request has a latency budget, begun before anything else is done for it."""

from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.ingress.budget import Budget, Record


class Timing:
    """Leave a Budget in `scope["state"]["budget"]`, and have those recorded that a model has answered to the end."""

    def __init__(self, app: ASGIApp, record: Record | None = None) -> None:
        self.app = app
        self.record = record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        budget = scope.setdefault("state", {})["budget"] = Budget()
        await self.app(scope, receive, send)
        if self.record is not None and budget.model and budget.total_s is not None:
            self.record(budget)
