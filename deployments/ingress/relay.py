"""Forward an engine's response: bytes in, bytes out."""

import json
import logging
from typing import Any

from starlette.responses import Response as StarletteResponse
from starlette.types import Receive, Scope, Send

from deployments.errors import ServingError
from deployments.ingress.services import Response

logger = logging.getLogger("ray.serve")

EVENT_STREAM = b"text/event-stream"
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"server", b"date"})
STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class Relay(StarletteResponse):
    """An engine's response as the ingress's own. Its chunks are never parsed, rebuilt or held back.

    Serve cancels this call when the client leaves, on either proxy; the engine's request is then aborted.
    """

    def __init__(self, upstream: Response) -> None:
        self.upstream = upstream
        self.status_code = upstream.head.status
        self.background = None
        headers = [pair for pair in upstream.head.headers if pair[0].lower() not in HOP_BY_HOP]
        self.is_event_stream = any(k.lower() == b"content-type" and v.startswith(EVENT_STREAM) for k, v in headers)
        self.raw_headers = headers + STREAM_HEADERS if self.is_event_stream else headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for chunk in self.upstream:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ServingError as error:
            if not self.is_event_stream:
                raise  # the connection breaks: a cut body must not look like a whole one
            logger.warning("request %s broke off: %s", scope["state"].get("request_id"), error)
            await send({"type": "http.response.body", "body": error_frame(error), "more_body": False})
        finally:
            self.upstream.cancel()


def error_frame(error: ServingError) -> bytes:
    """Write an error as the last server-sent event of a stream; the OpenAI clients raise on it."""
    return b"data: " + json.dumps(error.to_body()).encode() + b"\n\n"


def error_response(path: str, error: ServingError) -> StarletteResponse:
    """Write an error as the body its path's family promises: `/api/v1`, `/api`, or OpenAI's for everything else."""
    headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s is not None else None
    body: dict[str, Any] = error.to_body()
    if path.startswith("/api/v1/"):
        body = {"error": error.code or error.type, "details": error.message}
    elif path.startswith("/api/"):
        body = {"detail": error.message}
    return StarletteResponse(json.dumps(body).encode(), error.status, headers, "application/json")
