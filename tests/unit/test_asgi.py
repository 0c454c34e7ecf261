import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deployments.engine.asgi import AsgiApp, Exchange, Message, stream_asgi
from deployments.errors import EngineUnavailableError, InternalError
from deployments.types import HttpHead, HttpRequest
from tests.aio import leave, run, settle, until

Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

REQUEST = HttpRequest("POST", "/v1/completions", b"a=1&b=2", ((b"content-type", b"application/json"),), b'{"n":1}')


def start(status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]}


def body(chunk: bytes, more_body: bool = True) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more_body}


def stream(
    app: AsgiApp, max_buffered_bytes: int = 1024, abort_timeout_s: float = 60.0
) -> AsyncIterator[HttpHead | bytes]:
    return stream_asgi(app, REQUEST, max_buffered_bytes=max_buffered_bytes, abort_timeout_s=abort_timeout_s)


async def read_all(items: AsyncIterator[HttpHead | bytes]) -> tuple[HttpHead, bytes]:
    head = await anext(items)
    assert isinstance(head, HttpHead)
    return head, b"".join([chunk async for chunk in items if isinstance(chunk, bytes)])


class Waiting:
    """An application that begins a response, if told to, then waits for its reader to leave."""

    def __init__(self, *begin: Message) -> None:
        self.begin = begin
        self.is_waiting = False
        self.saw: list[str] = []

    async def __call__(self, _scope: Any, receive: Receive, send: Send) -> None:
        for message in self.begin:
            await send(message)
        self.saw.append((await receive())["type"])
        self.is_waiting = True
        self.saw.append((await receive())["type"])


def test_the_application_gets_the_request_and_the_reader_the_response() -> None:
    async def echo(request: Request) -> Response:
        seen = [request.method, request.url.path, request.scope["query_string"], *request.headers.raw[0]]
        return Response(b" ".join(x.encode() if isinstance(x, str) else x for x in (*seen, await request.body())), 201)

    head, content = run(read_all(stream(Starlette(routes=[Route("/v1/completions", echo, methods=["POST"])]))))
    assert head.status == 201
    assert content == b'POST /v1/completions a=1&b=2 content-type application/json {"n":1}'
    assert (b"content-length", str(len(content)).encode()) in head.headers


def test_each_chunk_reaches_a_waiting_reader_at_once() -> None:
    async def main() -> None:
        has_read = asyncio.Event()

        async def app(_scope: Any, _receive: Receive, send: Send) -> None:
            await send(start())
            await has_read.wait()
            has_read.clear()
            await send(body(b"one"))
            await has_read.wait()
            await send(body(b"two", more_body=False))

        items = stream(app)
        head = await anext(items)
        assert isinstance(head, HttpHead)
        has_read.set()
        assert await anext(items) == b"one"
        has_read.set()
        assert await anext(items) == b"two"
        assert [item async for item in items] == []

    run(main())


def test_chunks_are_joined_for_a_slow_reader() -> None:
    async def main() -> None:
        async def app(_scope: Any, _receive: Receive, send: Send) -> None:
            await send(start())
            for chunk in (b"one", b"", b"two", b"three"):
                await send(body(chunk))
            await send(body(b"", more_body=False))

        items = stream(app)
        await anext(items)
        await settle()
        assert [item async for item in items] == [b"onetwothree"]

    run(main())


def test_the_application_waits_while_too_much_is_unread() -> None:
    async def main() -> None:
        sent: list[int] = []

        async def app(_scope: Any, _receive: Receive, send: Send) -> None:
            await send(start())
            for index in range(10):
                await send(body(b"0123456789", more_body=index < 9))
                sent.append(index)

        items = stream(app, max_buffered_bytes=25)
        await anext(items)
        await settle()
        assert sent == [0, 1, 2, 3, 4]  # four times the request's 7 bytes are free until somebody reads
        first = await anext(items)
        assert first == b"0123456789" * 6
        await settle()
        assert sent == [0, 1, 2, 3, 4, 5, 6, 7]
        assert b"".join([first, *[item async for item in items if isinstance(item, bytes)]]) == b"0123456789" * 10
        assert sent == list(range(10))

    run(main())


@given(st.lists(st.binary(max_size=20), max_size=20), st.integers(0, 100))
def test_the_body_is_what_was_written(chunks: list[bytes], max_buffered_bytes: int) -> None:
    async def app(_scope: Any, _receive: Receive, send: Send) -> None:
        await send(start(202))
        for chunk in chunks:
            await send(body(chunk))
        await send({"type": "http.response.body"})

    head, content = run(read_all(stream(app, max_buffered_bytes)))
    assert head == HttpHead(202, ((b"content-type", b"text/plain"),))
    assert content == b"".join(chunks)


def test_a_reader_that_leaves_before_the_head_is_seen_by_the_application() -> None:
    async def main() -> None:
        app = Waiting()
        reader = asyncio.ensure_future(anext(stream(app)))
        await until(lambda: app.is_waiting)
        reader.cancel()
        await asyncio.wait({reader})
        assert reader.cancelled()
        assert app.saw == ["http.request", "http.disconnect"]

    run(main())


def test_a_reader_that_leaves_half_way_is_seen_by_the_application() -> None:
    async def main() -> None:
        app = Waiting(start(), body(b"one"))
        items = stream(app)
        await anext(items)
        assert await anext(items) == b"one"
        await leave(items)
        assert app.saw == ["http.request", "http.disconnect"]

    run(main())


def test_a_reader_that_leaves_frees_an_application_that_waits_for_room() -> None:
    async def main() -> None:
        app = Waiting(start(), body(b"x" * 100), body(b"y" * 100))
        items = stream(app, max_buffered_bytes=10)
        await anext(items)
        await settle()
        assert app.saw == []
        await leave(items)
        assert app.saw == ["http.request", "http.disconnect"]

    run(main())


@pytest.mark.parametrize("begin", [[], [start(), body(b"one")]], ids=["before the head", "half-way"])
def test_an_application_that_ignores_the_disconnect_is_cancelled(begin: list[Message]) -> None:
    async def main() -> None:
        is_waiting, is_cancelled = asyncio.Event(), asyncio.Event()

        async def app(_scope: Any, _receive: Receive, send: Send) -> None:
            for message in begin:
                await send(message)
            try:
                is_waiting.set()
                await asyncio.Event().wait()
            finally:
                is_cancelled.set()

        items = stream(app, abort_timeout_s=0.01)
        reader = asyncio.ensure_future(read_all(items))
        await is_waiting.wait()
        reader.cancel()
        await is_cancelled.wait()

    run(main())


@pytest.mark.parametrize("sent", [[], [start()], [start(), body(b"one")]], ids=["nothing", "head", "half a body"])
@pytest.mark.parametrize(
    ("raised", "expected"),
    [(ValueError("broken"), ValueError), (asyncio.CancelledError(), InternalError), (None, InternalError)],
    ids=["raises", "is cancelled", "just stops"],
)
def test_an_application_that_ends_early_fails_its_reader(
    sent: list[Message], raised: BaseException | None, expected: type[Exception]
) -> None:
    async def app(_scope: Any, _receive: Receive, send: Send) -> None:
        for message in sent:
            await send(message)
        if raised is not None:
            raise raised

    items: list[HttpHead | bytes] = []

    async def read() -> None:
        async for item in stream(app):
            items.append(item)

    with pytest.raises(expected):
        run(read())
    assert len(items) == len(sent)
    assert items[1:] == [message["body"] for message in sent[1:]]


def test_a_complete_500_stays_one_although_starlette_raises_again() -> None:
    async def broken(_request: Request) -> Response:
        raise ValueError("broken")

    head, content = run(read_all(stream(Starlette(routes=[Route("/v1/completions", broken, methods=["POST"])]))))
    assert head.status == 500
    assert content == b"Internal Server Error"


def test_a_reader_that_is_cancelled_twice_leaves_nothing_behind() -> None:
    async def main() -> None:
        waiting, ended = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            try:
                waiting.set()
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def read() -> None:
            async for _ in stream_asgi(
                app, HttpRequest("POST", "/", b"", (), b""), max_buffered_bytes=1, abort_timeout_s=60
            ):
                pass

        reader = asyncio.ensure_future(read())
        await waiting.wait()
        while not reader.done():
            reader.cancel()
            await asyncio.sleep(0)
        await ended.wait()

    asyncio.run(main())


@pytest.mark.parametrize("begin", [(), (start(), body(b"a"))], ids=["before the head", "in the body"])
def test_whoever_reads_can_be_told_of_a_fault_that_the_application_does_not_notice(begin: tuple[Message, ...]) -> None:
    """It need not even end: an engine that hangs keeps it waiting, and so must nobody wait for it."""
    among: set[Exchange] = set()
    has_begun = asyncio.Event()

    async def hangs(scope: Any, receive: Receive, send: Send) -> None:
        for message in begin:
            await send(message)
        has_begun.set()
        await asyncio.Event().wait()

    async def main() -> None:
        items = stream_asgi(hangs, REQUEST, max_buffered_bytes=1024, abort_timeout_s=60.0, among=among)
        reading = asyncio.ensure_future(read_all(items))
        await has_begun.wait()
        (exchange,) = among
        exchange.fail(EngineUnavailableError("gone"))
        with pytest.raises(EngineUnavailableError):
            await reading
        assert not among

    run(main())
