import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from config.limits import Deadlines
from deployments.errors import EngineUnavailableError
from deployments.ingress.relay import Relay, error_frame
from deployments.types import Headers, HttpRequest
from tests.aio import run, until
from tests.fakes import EVENTS, JSON, ScriptedEngine, ScriptedResponse

PATH = "/v1/chat/completions"
REQUEST = HttpRequest("POST", PATH, b"", (), b"x" * 40)
LOST = EngineUnavailableError("The engine was lost.", None, 1)


async def relay(upstream: ScriptedResponse, sent: list[Message]) -> None:
    async def receive() -> Message:
        raise AssertionError("the request was read before")

    async def send(message: Message) -> None:
        sent.append(message)

    await make_relay(upstream)({"type": "http", "state": {"request_id": "r"}}, receive, send)


def make_relay(upstream: ScriptedResponse, is_stream: bool = True) -> Relay:
    return Relay(ScriptedEngine(upstream), REQUEST, Deadlines(), is_stream)


def relayed(upstream: ScriptedResponse) -> list[Message]:
    sent: list[Message] = []
    run(relay(upstream, sent))
    return sent


def body_of(sent: list[Message]) -> bytes:
    return b"".join(message["body"] for message in sent[1:])


@pytest.mark.parametrize("headers", [JSON, EVENTS])
def test_every_chunk_is_sent_on_as_it_is(headers: Headers) -> None:
    chunks = [b"data: {\r\n", b"\xff\x00", b'"a": 1}\n', b"\ndata: [DONE]\n\n"]
    upstream = ScriptedResponse(chunks, headers, status=201)
    sent = relayed(upstream)
    assert sent[0]["status"] == 201
    assert [message["body"] for message in sent[1:]] == [*chunks, b""]
    assert [message["more_body"] for message in sent[1:]] == [True] * len(chunks) + [False]
    assert upstream.is_cancelled


@given(st.lists(st.binary(min_size=1)), st.sampled_from([JSON, EVENTS]))
def test_the_relayed_body_is_the_engines(chunks: list[bytes], headers: Headers) -> None:
    sent = relayed(ScriptedResponse(chunks, headers))
    assert body_of(sent) == b"".join(chunks)
    assert [message["more_body"] for message in sent[1:]].count(False) == 1


def test_headers_of_the_engines_connection_stay_behind() -> None:
    ours: Headers = (*JSON, (b"content-length", b"2"), (b"x-other", b"1"))
    theirs: Headers = (
        (b"Connection", b"close"),
        (b"transfer-encoding", b"chunked"),
        (b"server", b"x"),
        (b"date", b"y"),
    )
    assert relayed(ScriptedResponse([b"{}"], (*ours, *theirs)))[0]["headers"] == list(ours)


def test_streams_are_neither_cached_nor_buffered_on_their_way() -> None:
    headers = dict(relayed(ScriptedResponse([], EVENTS))[0]["headers"])
    assert headers[b"cache-control"] == b"no-cache"
    assert headers[b"x-accel-buffering"] == b"no"
    assert b"cache-control" not in dict(relayed(ScriptedResponse([], JSON))[0]["headers"])


def test_a_stream_that_breaks_ends_with_one_error_frame() -> None:
    upstream = ScriptedResponse([b"data: {}\n\n", LOST], EVENTS)
    sent = relayed(upstream)
    assert [message["body"] for message in sent[1:]] == [b"data: {}\n\n", error_frame(LOST, PATH)]
    assert sent[-1]["more_body"] is False
    assert upstream.is_cancelled


def test_an_error_frame_is_one_server_sent_event_with_the_openai_body() -> None:
    frame = error_frame(EngineUnavailableError("two\nlines, 模型"), PATH)
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert frame.count(b"\n") == 2
    assert json.loads(frame.removeprefix(b"data: "))["error"]["message"] == "two\nlines, 模型"


def test_a_plain_body_that_breaks_breaks_the_connection() -> None:
    upstream = ScriptedResponse([b'{"a":', LOST], JSON)
    sent: list[Message] = []
    with pytest.raises(EngineUnavailableError):
        run(relay(upstream, sent))
    assert body_of(sent) == b'{"a":'
    assert all(message["more_body"] for message in sent[1:])
    assert upstream.is_cancelled


@pytest.mark.parametrize("headers", [JSON, EVENTS])
def test_an_error_that_nobody_foresaw_breaks_the_connection(headers: Headers) -> None:
    upstream = ScriptedResponse([b"data: {}\n\n", ValueError("secret")], headers)
    sent: list[Message] = []
    with pytest.raises(ValueError, match="secret"):
        run(relay(upstream, sent))
    assert all(message["more_body"] for message in sent[1:])
    assert upstream.is_cancelled


def test_a_client_that_leaves_aborts_the_engines_request() -> None:
    async def main() -> None:
        upstream = ScriptedResponse([b"data: {}\n\n", asyncio.Event()], EVENTS)
        sent: list[Any] = []
        task = asyncio.ensure_future(relay(upstream, sent))
        await until(lambda: len(sent) == 2)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        assert upstream.is_cancelled

    run(main())


def test_a_connection_that_cannot_be_written_to_aborts_the_engines_request() -> None:
    upstream = ScriptedResponse([b"data: {}\n\n"], EVENTS)

    async def receive() -> Message:
        raise AssertionError("the request was read before")

    async def send(_message: Message) -> None:
        raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        run(make_relay(upstream)({"type": "http", "state": {}}, receive, send))
    assert upstream.is_cancelled
