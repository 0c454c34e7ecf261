"""Drive an ASGI application in process: one request in, raw response bytes out, no socket between."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextvars import Context
from typing import Any

from deployments.errors import InternalError
from deployments.types import HttpHead, HttpRequest

Message = MutableMapping[str, Any]
REPEATS = 4
"""How often a response may hold its request before anybody reads; `/v1/responses` writes it twice, with escapes."""

AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


async def stream_asgi(
    app: AsgiApp,
    request: HttpRequest,
    *,
    max_buffered_bytes: int,
    abort_timeout_s: float,
    context: Context | None = None,
    among: "set[Exchange] | None" = None,
) -> AsyncGenerator[HttpHead | bytes, None]:
    """Yield the response's head, then its body as it is written.

    Chunks that are written faster than they are read are joined into one, and the application waits once
    `max_buffered_bytes` are held. When the reader leaves, the application receives `http.disconnect`, which is how
    vLLM aborts streaming and plain requests alike; if it has not ended after `abort_timeout_s`, it is cancelled. It
    runs in `context`, or in a copy of the caller's. While it runs, it is one of `among`.

    Raises whatever the application raises before its response is complete, InternalError when it just stops.
    """
    exchange = Exchange(request, max_buffered_bytes)
    task = exchange.task = asyncio.create_task(serve(app, exchange), context=context)
    task.add_done_callback(exchange.on_end)
    among = set() if among is None else among
    among.add(exchange)
    try:
        yield await exchange.head()
        while chunk := await exchange.read():
            yield chunk
    finally:
        among.discard(exchange)
        exchange.leave()
        try:
            if not task.done():
                await asyncio.wait({task}, timeout=abort_timeout_s)
        finally:
            task.cancel()  # also when the reader itself is cancelled while it waits


async def serve(app: AsgiApp, exchange: "Exchange") -> None:
    await app(exchange.scope, exchange.receive, exchange.send)


class Exchange:
    """The two ends of one request: `receive` and `send` for the application, `head` and `read` for us."""

    task: asyncio.Task[None]

    def __init__(self, request: HttpRequest, max_buffered_bytes: int) -> None:
        self.scope = to_scope(request)
        self._body: bytes | None = request.body
        self._max_buffered_bytes = max_buffered_bytes
        self._head: HttpHead | None = None
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0
        self._complete = False
        # Some routes of vLLM repeat the request in their first events, and only then ask the engine. Whether it can do
        # what is asked must be known before the head goes out, so that much is taken without a reader.
        self._unread_bytes = REPEATS * len(request.body)
        self._error: BaseException | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._left = asyncio.Event()

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = HttpHead(message["status"], tuple((bytes(k), bytes(v)) for k, v in message.get("headers", ())))
        elif message["type"] == "http.response.body":
            if body := message.get("body", b""):
                self._chunks.append(body)
                self._buffered_bytes += len(body)
            self._complete = not message.get("more_body", False)
        self._news.set()
        if self._buffered_bytes > self._max_buffered_bytes + self._unread_bytes:
            self._room.clear()
            await self._room.wait()

    def on_end(self, task: asyncio.Future[None]) -> None:
        # Starlette raises again what it has already answered with a 500: a complete response stays one.
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not self._complete and error is None:
            error = InternalError()
        self._error = self._error or error
        self._news.set()

    def fail(self, error: Exception) -> None:
        """Have whoever reads raise an error at once, whatever the application does."""
        self._error = error
        self._news.set()
        self.task.cancel()

    def leave(self) -> None:
        self._left.set()
        self._room.set()
        self._max_buffered_bytes = 2**63

    async def head(self) -> HttpHead:
        while self._head is None:
            await self._wait()
        return self._head

    async def read(self) -> bytes:
        """Return all bytes written since the last call, b"" at the end."""
        self._unread_bytes = 0
        while not self._chunks:
            if self._complete:
                return b""
            await self._wait()
        chunk = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered_bytes = 0
        self._room.set()
        return chunk

    async def _wait(self) -> None:
        if self._error is not None:
            raise InternalError() if isinstance(self._error, asyncio.CancelledError) else self._error
        self._news.clear()
        await self._news.wait()


def to_scope(request: HttpRequest) -> dict[str, Any]:
    """Build the ASGI HTTP scope (https://asgi.readthedocs.io/en/latest/specs/www.html)."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": request.query,
        "root_path": "",
        "headers": list(request.headers),
        "client": None,
        "server": None,
        "state": {},
        "extensions": {},
    }
