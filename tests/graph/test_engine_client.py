"""One request to engines whose answers are scripted: what is retried, what waits, what is told to the client."""

import asyncio
from array import array
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.serve.exceptions import BackPressureError

from deployments.analysis_types import Branches, BranchRequest, SampleRequest, Samples, ScoreRequest, TokenScores
from deployments.engine.client import EngineClient
from deployments.errors import (
    EngineUnavailableError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    ServingError,
)
from deployments.types import Accepted, HttpRequest, Usage
from tests.aio import settle
from tests.handles import HEAD, LOST, WAIT, AnswerHandle, Handle, from_replica

REQUEST = HttpRequest("POST", "/v1/completions", b"", (), b"{}")


def client_of(handle: Handle) -> EngineClient:
    client = EngineClient.__new__(EngineClient)  # its constructor needs a running Serve
    client._stream_http = handle
    client._waiting = set()
    return client


def run(handle: Handle, use: Callable[[EngineClient], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await use(client_of(handle))

    return asyncio.run(main())


async def body_of(client: EngineClient) -> bytes:
    return b"".join([chunk async for chunk in await client.open(REQUEST)])


def test_a_response_is_its_head_and_then_its_chunks() -> None:
    assert run(Handle([Accepted(), HEAD, b"a", b"b"]), body_of) == b"ab"


@pytest.mark.parametrize("after", [[], [LOST]])
def test_usage_comes_after_the_body_and_is_no_chunk(after: list[Any]) -> None:
    handle = Handle([Accepted(), HEAD, b"a", Usage(3, 1), *after])

    async def read(client: EngineClient) -> list[Any]:
        response = await client.open(REQUEST)
        return [response.usage, *[chunk async for chunk in response], response.usage]

    assert run(handle, read) == [None, b"a", Usage(3, 1)]
    assert handle.calls[0].script == [], "read to the end: leaving earlier would cancel the call"


def test_a_response_that_breaks_off_has_no_usage() -> None:
    async def read(client: EngineClient) -> None:
        response = await client.open(REQUEST)
        with pytest.raises(EngineUnavailableError):
            [chunk async for chunk in response]
        assert response.usage is None

    run(Handle([Accepted(), HEAD, b"a", LOST]), read)


class Probe:
    """A handle whose calls end alike."""

    def __init__(self, answer: float | Exception) -> None:
        self.answer = answer

    async def remote(self) -> float:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def probe(answer: float | Exception) -> Any:
    client = client_of(Handle())
    client._probe = Probe(answer)
    return asyncio.run(client.probe())


def test_a_probe_says_how_long_it_took_or_that_the_engine_is_away() -> None:
    assert probe(0.25) == 0.25
    for error in (EngineUnavailableError("no token"), LOST):
        with pytest.raises(EngineUnavailableError):
            probe(error)


@pytest.mark.parametrize("script", [[LOST], [Accepted(), LOST], [Accepted(), EngineUnavailableError("dead")]])
def test_a_replica_lost_before_the_head_is_replaced_once(script: list[Any]) -> None:
    handle = Handle(script, [Accepted(), HEAD, b"a"])
    assert run(handle, body_of) == b"a"
    assert handle.sent == 2


def test_two_lost_replicas_are_enough() -> None:
    handle = Handle([LOST], [LOST], [Accepted(), HEAD])
    with pytest.raises(EngineUnavailableError):
        run(handle, body_of)
    assert handle.sent == 2


def test_a_replica_lost_after_the_head_is_an_error_and_no_second_answer() -> None:
    handle = Handle([Accepted(), HEAD, b"a", LOST], [Accepted(), HEAD, b"a"])
    with pytest.raises(EngineUnavailableError):
        run(handle, body_of)
    assert handle.sent == 1


@pytest.mark.parametrize(
    ("error", "expected"), [(BackPressureError(1, 1), OverloadedError), (ValueError("secret"), InternalError)]
)
def test_other_errors_are_not_retried(error: Exception, expected: type[ServingError]) -> None:
    handle = Handle([error])
    with pytest.raises(expected) as caught:
        run(handle, body_of)
    assert "secret" not in str(caught.value)
    assert handle.calls[0].cancelled.is_set()


def test_a_waiting_request_ends_when_its_model_goes_away_and_is_not_sent_again() -> None:
    handle = Handle([WAIT], [Accepted(), HEAD])

    async def wait_and_abandon(client: EngineClient) -> None:
        waiting = asyncio.ensure_future(client.open(REQUEST))
        while not client._waiting:
            await asyncio.sleep(0)
        client.abandon()
        await waiting

    with pytest.raises(EngineUnavailableError) as caught:
        run(handle, wait_and_abandon)
    assert caught.value.retry_after_s
    assert handle.sent == 1


def test_a_request_that_a_replica_has_is_not_abandoned() -> None:
    handle = Handle([Accepted(), WAIT])

    async def abandon_then_leave(client: EngineClient) -> bool:
        waiting = asyncio.ensure_future(client.open(REQUEST))
        while handle.sent == 0 or client._waiting:
            await asyncio.sleep(0)
        client.abandon()
        still_waiting = not handle.calls[0].cancelled.is_set()
        waiting.cancel()
        await asyncio.wait({waiting})
        return still_waiting and handle.calls[0].cancelled.is_set()

    assert run(handle, abandon_then_leave)


IDS = array("i", [1, 2])
ASKED = {
    "score": (ScoreRequest(IDS, 1, 5), TokenScores(5, IDS, array("f"), IDS, IDS, array("f"), Usage(2, 1))),
    "branch": (BranchRequest(IDS, 5, 1, frozenset()), Branches((), Usage(2, 1))),
    "sample": (SampleRequest(IDS, 1, 1, 0.5, 50, 0.95), Samples((IDS,), Usage(2, 2))),
}
"""What is asked by method, and an answer."""
each_method = pytest.mark.parametrize("method", ASKED)


async def answer(method: str, handle: AnswerHandle) -> Any:
    client = client_of(Handle())
    setattr(client, f"_{method}", handle)
    return await getattr(client, method)(ASKED[method][0])


@each_method
def test_a_token_level_call_is_sent_as_it_is_and_answered(method: str) -> None:
    asked, expected = ASKED[method]
    handle = AnswerHandle(expected)
    assert asyncio.run(answer(method, handle)) is expected
    assert handle.requests == [asked]


@each_method
@pytest.mark.parametrize("error", [LOST, EngineUnavailableError("dead")])
def test_a_token_level_call_is_asked_of_another_replica_once(method: str, error: Exception) -> None:
    asked, expected = ASKED[method]
    handle = AnswerHandle(error, expected)
    assert asyncio.run(answer(method, handle)) is expected
    assert handle.requests == [asked, asked]
    handle = AnswerHandle(error, error, expected)
    with pytest.raises(EngineUnavailableError):
        asyncio.run(answer(method, handle))
    assert len(handle.requests) == 2


@each_method
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BackPressureError(1, 1), OverloadedError),
        (ValueError("secret"), InternalError),
        (from_replica(ValueError("secret")), InternalError),
        (from_replica(InvalidRequestError("too long")), InvalidRequestError),
    ],
)
def test_other_errors_of_a_token_level_call_are_not_retried(
    method: str, error: Exception, expected: type[ServingError]
) -> None:
    handle = AnswerHandle(error)
    with pytest.raises(expected) as caught:
        asyncio.run(answer(method, handle))
    assert "secret" not in str(caught.value)
    assert len(handle.requests) == 1


@each_method
def test_a_dead_engine_is_not_the_end_of_a_token_level_call(method: str) -> None:
    _, expected = ASKED[method]
    handle = AnswerHandle(from_replica(EngineUnavailableError("dead")), expected)
    assert asyncio.run(answer(method, handle)) is expected


@each_method
@pytest.mark.parametrize("before", [[], [LOST]])
def test_leaving_cancels_a_token_level_call(method: str, before: list[Exception]) -> None:
    handle = AnswerHandle(*before, WAIT)

    async def leave() -> None:
        asking = asyncio.ensure_future(answer(method, handle))
        await settle()
        assert not handle.calls[-1].cancelled.is_set()
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()

    asyncio.run(leave())
    assert handle.calls[-1].cancelled.is_set()
    assert len(handle.requests) == len(handle.calls)
