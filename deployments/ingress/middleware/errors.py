"""Every error as the body that its path's family promises; what nobody foresaw says nothing to the client."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.errors import AccessDeniedError, AuthenticationError, InternalError, ServingError

logger = logging.getLogger("ray.serve")


class Errors:
    """Answer a ServingError as what it is, and anything else with a fixed text, logged whole under the request id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched_send(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except Exception as error:
            answer = error if isinstance(error, ServingError) else InternalError()
            if answer is not error or begun:
                logger.exception("request %s failed", scope.get("state", {}).get("request_id"))
            if begun:
                raise  # the connection breaks: a cut body must not look like a whole one
            await error_response(scope["path"], answer)(scope, receive, send)


class ErrorResponse(Response):
    """An error's body; leaves the error in `scope["state"]["error"]` for those who watch."""

    def __init__(self, error: ServingError, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        super().__init__(json.dumps(body).encode(), error.status, headers, "application/json")
        self.error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["error"] = self.error
        await super().__call__(scope, receive, send)


def error_response(path: str, error: ServingError, headers: Mapping[str, str] | None = None) -> Response:
    """Write an error as the body its path's family promises: `/api/v1`, `/api`, or OpenAI's for everything else.

    Errors about keys have OpenAI's body everywhere.
    """
    headers = dict(headers or {})
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    body: dict[str, Any] = error.to_body()
    if isinstance(error, AuthenticationError):
        headers["www-authenticate"] = "Bearer"
    elif isinstance(error, AccessDeniedError):
        pass
    elif path == "/api/v1" or path.startswith("/api/v1/"):
        body = {"error": error.code or error.type, "details": error.message}
    elif path == "/api" or path.startswith("/api/"):
        body = {"detail": error.message}
    return ErrorResponse(error, body, headers)
