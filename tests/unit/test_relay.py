import asyncio
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from config.limits import Deadlines
from deployments.errors import DeadlineExceededError, EngineUnavailableError
from deployments.ingress.relay import COMMENT, Relay, error_frame, refusal_frame
from deployments.ingress.services import Response
from deployments.types import Headers, HttpRequest, Usage
from tests.aio import run, until
from tests.fakes import EVENTS, JSON, ScriptedEngine, ScriptedResponse

PATH = "/v1/chat/completions"
REQUEST = HttpRequest("POST", PATH, b"", (), b"x" * 40)
SCOPE = {"type": "http", "headers": []}
LOST = EngineUnavailableError("The engine was lost.", None, 1)


async def relay(upstream: ScriptedResponse, sent: list[Message]) -> None:
    async def receive() -> Message:
        raise AssertionError("the request was read before")

    async def send(message: Message) -> None:
        sent.append(message)

    await make_relay(upstream)(SCOPE | {"state": {"request_id": "r"}}, receive, send)


def make_relay(upstream: ScriptedResponse, is_stream: bool = True, deadlines: Deadlines | None = None) -> Relay:
    return Relay(ScriptedEngine(upstream), REQUEST, deadlines or Deadlines(), is_stream, "demo")


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
        run(make_relay(upstream)(SCOPE | {"state": {}}, receive, send))
    assert upstream.is_cancelled


class LateEngine(ScriptedEngine):
    """Answers when the test lets it."""

    def __init__(self, answer: ScriptedResponse | Exception) -> None:
        super().__init__(answer)
        self.gate = asyncio.Event()

    async def open(self, request: HttpRequest) -> Response:
        await self.gate.wait()
        return await super().open(request)


QUICK = Deadlines(heartbeat_s=0.01)


async def late(engine: LateEngine, sent: list[Message], is_stream: bool = True, messages: int = 3) -> None:
    """Relay with a short heartbeat; let the engine answer after so many messages, or after some time when none come."""

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("the request was read before")

    relaying = asyncio.ensure_future(
        Relay(engine, REQUEST, QUICK, is_stream, "demo")(SCOPE | {"state": {}}, receive, send)
    )
    if messages:
        await until(lambda: len(sent) >= messages)
    else:
        await asyncio.sleep(0.05)
    engine.gate.set()
    await relaying


def test_a_stream_that_waits_is_sent_comments() -> None:
    sent: list[Message] = []
    run(late(LateEngine(ScriptedResponse([b"data: a\n\n", b"data: [DONE]\n\n"], EVENTS)), sent))
    assert [message["type"] for message in sent].count("http.response.start") == 1
    assert dict(sent[0]["headers"])[b"content-type"].startswith(b"text/event-stream")
    body = body_of(sent)
    assert body.startswith(COMMENT * 2)
    assert body.replace(COMMENT, b"") == b"data: a\n\ndata: [DONE]\n\n"
    assert sent[-1]["more_body"] is False


@pytest.mark.parametrize(
    "answer",
    [
        EngineUnavailableError("no memory"),
        ScriptedResponse([b'{"error": {"message":', b'\n"no memory"}}'], JSON, status=400),
    ],
)
def test_after_comments_an_error_is_the_streams_last_event(answer: ScriptedResponse | Exception) -> None:
    sent: list[Message] = []
    run(late(LateEngine(answer), sent))
    event = body_of(sent).replace(COMMENT, b"")
    assert json.loads(event.removeprefix(b"data: "))["error"]["message"] == "no memory"
    assert event.endswith(b"\n\n")
    assert sent[-1]["more_body"] is False


def test_after_comments_an_error_of_messages_has_a_name() -> None:
    """The clients of that route pass over events without one, and would take the stream for complete."""
    upstream = ScriptedResponse([b'{"type": "error",\r\n "error": {"message": "no"}}'], JSON, status=400)
    request = HttpRequest("POST", "/v1/messages", b"", (), b"{}")

    async def main() -> bytes:
        event = await refusal_frame(upstream, request.path)
        assert await refusal_frame(upstream, PATH) == event.removeprefix(b"event: error\n")
        return event

    name, data, *end = run(main()).split(b"\n")
    assert (name, end) == (b"event: error", [b"", b""])
    assert json.loads(data.removeprefix(b"data: "))["error"]["message"] == "no"


def test_an_answer_that_comes_as_a_whole_is_not_sent_comments() -> None:
    sent: list[Message] = []
    run(late(LateEngine(ScriptedResponse([b"{}"], JSON, status=201)), sent, is_stream=False, messages=0))
    assert sent[0]["status"] == 201
    assert body_of(sent) == b"{}"


def test_a_stream_whose_first_chunk_is_late_is_sent_comments_after_its_head() -> None:
    async def main() -> None:
        first = asyncio.Event()
        sent: list[Message] = []
        engine = LateEngine(ScriptedResponse([first, b"data: a\n\n"], EVENTS, status=200))
        engine.gate.set()
        relaying = asyncio.ensure_future(late(engine, sent))
        await until(lambda: len(sent) >= 3)
        first.set()
        await relaying
        assert body_of(sent).startswith(COMMENT)
        assert body_of(sent).endswith(b"data: a\n\n")

    run(main())


def test_a_client_that_leaves_while_it_is_sent_comments() -> None:
    async def main() -> None:
        engine, sent = LateEngine(ScriptedResponse([], EVENTS)), []  # type: ignore[var-annotated]
        waiting = asyncio.ensure_future(late(engine, sent, messages=10**9))
        await until(lambda: len(sent) >= 3)
        relaying = next(task for task in asyncio.all_tasks() if "Relay" in str(task.get_coro()))
        relaying.cancel()
        await asyncio.wait({relaying})
        assert relaying.cancelled()
        waiting.cancel()
        count = len(sent)
        await asyncio.sleep(0.05)
        assert len(sent) == count, "comments go on"

    run(main())


def tokens_of(upstream: ScriptedResponse) -> int:
    state: dict[str, Any] = {}

    async def main() -> None:
        async def receive() -> Message:
            raise AssertionError("the request was read before")

        async def send(message: Message) -> None:
            pass

        with contextlib.suppress(EngineUnavailableError):
            await make_relay(upstream)(SCOPE | {"state": state}, receive, send)

    run(main())
    tokens: int = state["tokens"]
    return tokens


def test_what_a_request_cost() -> None:
    assert tokens_of(ScriptedResponse([b"data: a\n\n"], EVENTS, cost=Usage(7, 5))) == 12
    assert tokens_of(ScriptedResponse([b"{}"], JSON, cost=Usage(3, 0))) == 3


def test_what_a_broken_request_is_taken_to_have_cost() -> None:
    """A quarter of the body's bytes, and one for each chunk."""
    assert tokens_of(ScriptedResponse([b"a", b"b", LOST], EVENTS, cost=Usage(7, 5))) == len(REQUEST.body) // 4 + 2


def test_an_error_in_a_stream_of_messages_has_their_form() -> None:
    frame = error_frame(LOST, "/v1/messages")
    assert frame.startswith(b"event: error\ndata: ")
    assert json.loads(frame.split(b"data: ")[1])["type"] == "error"


@pytest.mark.parametrize("headers", [JSON, EVENTS])
def test_no_chunk_is_held_back_until_the_next_one(headers: Headers) -> None:
    async def main() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        sent: list[Message] = []
        relaying = asyncio.ensure_future(relay(ScriptedResponse([b"a", first, b"b", second], headers), sent))
        await until(lambda: [message.get("body") for message in sent] == [None, b"a"])
        first.set()
        await until(lambda: sent[-1].get("body") == b"b")
        second.set()
        await relaying

    run(main())


class Client:
    """Takes messages until it has taken `reads` of them, then none any more."""

    def __init__(self, reads: int = 10**9) -> None:
        self.reads = reads
        self.sent: list[Message] = []
        self.state: dict[str, Any] = {"request_id": "r"}

    async def ask(self, relay: Relay) -> None:
        async def receive() -> Message:
            raise AssertionError("the request was read before")

        await relay(SCOPE | {"state": self.state}, receive, self.take)

    async def take(self, message: Message) -> None:
        if len(self.sent) >= self.reads:
            await asyncio.Event().wait()
        self.sent.append(message)


SHORT_S = 0.02


def test_a_stream_that_never_begins_is_given_up_before_its_head() -> None:
    engine, client = LateEngine(ScriptedResponse([], EVENTS)), Client()
    with pytest.raises(DeadlineExceededError):
        run(client.ask(Relay(engine, REQUEST, Deadlines(first_byte_s=SHORT_S), True, "demo")))
    assert not client.sent


@pytest.mark.parametrize("deadlines", [Deadlines(idle_s=SHORT_S), Deadlines(total_s=SHORT_S)])
def test_a_stream_that_stops_ends_with_an_error_event(deadlines: Deadlines) -> None:
    upstream, client = ScriptedResponse([b"data: a\n\n", asyncio.Event()], EVENTS), Client()
    run(client.ask(make_relay(upstream, deadlines=deadlines)))
    assert json.loads(client.sent[-1]["body"].removeprefix(b"data: "))["error"]["code"] == "deadline_exceeded"
    assert client.sent[-1]["more_body"] is False
    assert upstream.is_cancelled
    assert client.state["tokens"] == len(REQUEST.body) // 4 + 1


def test_a_whole_answer_that_stops_half_way_breaks_the_connection() -> None:
    upstream, client = ScriptedResponse([b'{"a":', asyncio.Event()], JSON), Client()
    with pytest.raises(DeadlineExceededError):
        run(client.ask(make_relay(upstream, is_stream=False, deadlines=Deadlines(idle_s=SHORT_S))))
    assert all(message["more_body"] for message in client.sent[1:])
    assert upstream.is_cancelled


@pytest.mark.parametrize("headers", [JSON, EVENTS])
def test_a_client_that_does_not_read_holds_nothing_for_ever(headers: Headers) -> None:
    upstream, client = ScriptedResponse([b"a"] * 5, headers), Client(reads=3)
    with pytest.raises((DeadlineExceededError, TimeoutError)):
        run(client.ask(make_relay(upstream, deadlines=Deadlines(idle_s=SHORT_S))))
    assert upstream.is_cancelled
    assert len(client.sent) == 3


def test_what_a_request_is_taken_to_have_cost_when_its_client_leaves() -> None:
    async def main() -> None:
        upstream, client = ScriptedResponse([b"a", b"b", asyncio.Event()], EVENTS, cost=Usage(7, 5)), Client()
        relaying = asyncio.ensure_future(client.ask(make_relay(upstream)))
        await until(lambda: len(client.sent) == 3)
        relaying.cancel()
        await asyncio.wait({relaying})
        assert client.state["tokens"] == len(REQUEST.body) // 4 + 2

    run(main())


def test_a_request_that_no_engine_took_costs_nothing() -> None:
    client = Client()
    with pytest.raises(EngineUnavailableError):
        run(client.ask(Relay(ScriptedEngine(LOST), REQUEST, Deadlines(), True, "demo")))
    assert client.state["tokens"] == 0


def test_who_leaves_before_a_plain_answer_is_there_has_cost_its_prompt() -> None:
    async def main() -> None:
        state: dict[str, Any] = {}

        async def never(*_: object) -> Message:
            raise AssertionError("nothing is sent or read")

        relay_ = Relay(LateEngine(ScriptedResponse([])), REQUEST, Deadlines(), False, "demo")
        task = asyncio.ensure_future(relay_(SCOPE | {"state": state}, never, never))  # type: ignore[arg-type]
        await until(lambda: "tokens" in state)
        task.cancel()
        await asyncio.wait({task})
        assert state["tokens"] == len(REQUEST.body) // 4

    run(main())
