"""Every request has an id, every response carries it."""

import re
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-request-id"
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class RequestId:
    """Keep a well-formed `x-request-id`, replace any other by a new one, and echo it on the response.

    server_echoes: the server in front of the application already echoes the id that it received. Serve does, even a
    malformed one, and cannot be told not to: echoing again would send the header twice.
    """

    def __init__(self, app: ASGIApp, server_echoes: bool = False) -> None:
        self.app = app
        self.server_echoes = server_echoes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == HEADER), b"")
        request_id = given if _WELL_FORMED.fullmatch(given) else uuid.uuid4().hex.encode()
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != HEADER] + [(HEADER, request_id)]
        scope.setdefault("state", {})["request_id"] = request_id.decode()

        if self.server_echoes:
            await self.app(scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id.decode()
            await send(message)

        await self.app(scope, receive, send_with_id)
