"""One request to engines whose answers are scripted: what is retried, what waits, what is told to the client."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError
from ray.serve.exceptions import BackPressureError

from deployments.engine.client import EngineClient
from deployments.errors import EngineUnavailableError, InternalError, OverloadedError, ServingError
from deployments.types import Accepted, HttpHead, HttpRequest, Usage

REQUEST = HttpRequest("POST", "/v1/completions", b"", (), b"{}")
HEAD = HttpHead(200, ())
LOST = ActorUnavailableError("gone", b"0" * 16)
WAIT = object()
"""In a script: nothing comes until the call is cancelled."""


class Items:
    """A handle's streamed response: yields its script, raises what is an error, waits at WAIT."""

    def __init__(self, script: list[Any]) -> None:
        self.script = script
        self.cancelled = asyncio.Event()

    async def __anext__(self) -> Any:
        if not self.script:
            raise StopAsyncIteration
        item = self.script.pop(0)
        if item is WAIT:
            await self.cancelled.wait()
            raise asyncio.CancelledError
        if isinstance(item, Exception):
            raise item
        return item

    def cancel(self) -> None:
        self.cancelled.set()


class Handle:
    """A handle whose calls answer with one script after the other."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.calls = [Items(script) for script in scripts]
        self.sent = 0

    def remote(self, request: HttpRequest) -> Items:
        self.sent += 1
        return self.calls[self.sent - 1]


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
