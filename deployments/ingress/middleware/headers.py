"""What of a client's headers is believed, and what goes on to an engine."""

import asyncio
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.types import Headers

TRACE_CONTEXT = frozenset({b"traceparent", b"tracestate"})
FORWARDED = frozenset({b"content-type", b"accept", b"x-request-id", b"x-session-id"}) | TRACE_CONTEXT

DISCONNECT_DISABLED = b"x-request-disconnect-disabled"
UNTRUSTED = frozenset(
    {
        DISCONNECT_DISABLED,
        b"x-request-timeout-seconds",
        b"serve_multiplexed_model_id",
        b"forwarded",
        b"x-real-ip",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-forwarded-prefix",
    }
)


def engine_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Keep what an engine understands; keys, cookies and Serve's control headers stay outside."""
    return tuple((name, value) for name, value in headers if name in FORWARDED)


class HeaderHygiene:
    """Drop headers by which a client would steer the server or pass for another.

    Serve honours `x-request-disconnect-disabled` before any application sees the request: nobody then notices that the
    client leaves. A request that carries it is watched here.

    `is_traced`: the trace context is ours. A client's would say what an engine traces, and as part of which trace.
    """

    def __init__(self, app: ASGIApp, is_traced: bool = False) -> None:
        self.app = app
        self.untrusted = UNTRUSTED if is_traced else UNTRUSTED | TRACE_CONTEXT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_unwatched = any(name == DISCONNECT_DISABLED for name, _ in scope["headers"])
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in self.untrusted]
        if is_unwatched:
            await cancel_when_client_leaves(self.app, scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def cancel_when_client_leaves(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the application, and cancel it on `http.disconnect`; it has ended when this returns."""
    messages: asyncio.Queue[Message] = asyncio.Queue(maxsize=1)

    async def watch() -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            await messages.put(message)

    work = asyncio.ensure_future(app(scope, messages.get, send))
    watching = asyncio.ensure_future(watch())
    try:
        await asyncio.wait({work, watching}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work  # what it raised
    finally:
        work.cancel()
        watching.cancel()
        await asyncio.wait({work, watching})  # what it leaves behind at its end, such as its cost, is read after this
