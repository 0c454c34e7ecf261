"""One question to Tokenizers whose answers are scripted: what is asked again, and what is told to the client."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.serve.exceptions import BackPressureError

from deployments.analysis_types import AnalysisRequest, RevisionsQuestion
from deployments.errors import (
    ContextLengthError,
    EngineUnavailableError,
    InternalError,
    OverloadedError,
    ServingError,
)
from deployments.tokenizer.client import TokenizerClient
from deployments.types import HttpHead, Usage
from tests.aio import settle
from tests.handles import HEAD, LOST, WAIT, Handle, from_replica

REQUEST = AnalysisRequest("m", "/api/gen_revisions", b"doc=a", RevisionsQuestion("a", "b", 1, 1))


class TokenizerHandle(Handle):
    """A handle that remembers which of its methods is called, and how."""

    def options(self, **options: Any) -> "TokenizerHandle":
        self.chosen = options
        return self


def run(handle: TokenizerHandle, use: Callable[[TokenizerClient], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await use(TokenizerClient(handle))

    return asyncio.run(main())


async def body_of(client: TokenizerClient) -> bytes:
    return b"".join([chunk async for chunk in await client.open(REQUEST)])


def test_an_answer_is_its_head_its_chunks_and_what_it_cost() -> None:
    handle = TokenizerHandle([HttpHead(200, ((b"a", b"b"),)), b"a", b"b", Usage(3, 1)])

    async def read(client: TokenizerClient) -> list[Any]:
        response = await client.open(REQUEST)
        return [response.head, response.usage, *[chunk async for chunk in response], response.usage]

    assert run(handle, read) == [HttpHead(200, ((b"a", b"b"),)), None, b"a", b"b", Usage(3, 1)]
    assert handle.chosen == {"method_name": "answer", "stream": True}
    assert handle.sent == 1


def test_a_tokenizer_lost_before_the_head_is_replaced_once() -> None:
    handle = TokenizerHandle([LOST], [HEAD, b"a"])
    assert run(handle, body_of) == b"a"
    assert handle.sent == 2
    assert handle.calls[0].cancelled.is_set()


def test_two_lost_tokenizers_are_enough() -> None:
    handle = TokenizerHandle([LOST], [LOST], [HEAD])
    with pytest.raises(EngineUnavailableError):
        run(handle, body_of)
    assert handle.sent == 2


def test_a_tokenizer_lost_after_the_head_is_an_error_and_no_second_answer() -> None:
    handle = TokenizerHandle([HEAD, b"a", LOST], [HEAD, b"a"])
    with pytest.raises(EngineUnavailableError):
        run(handle, body_of)
    assert handle.sent == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (from_replica(ContextLengthError("too long")), ContextLengthError),
        (from_replica(OverloadedError("too many", "model", 2)), OverloadedError),
        (from_replica(EngineUnavailableError("no engine")), EngineUnavailableError),
        (from_replica(ValueError("secret")), InternalError),
        (BackPressureError(1, 1), OverloadedError),
        (ValueError("secret"), InternalError),
    ],
)
def test_other_errors_are_told_and_not_retried(error: Exception, expected: type[ServingError]) -> None:
    """An engine that is away has been asked twice already, by the Tokenizer."""
    handle = TokenizerHandle([error], [HEAD])
    with pytest.raises(expected) as caught:
        run(handle, body_of)
    assert "secret" not in str(caught.value)
    assert handle.sent == 1
    assert handle.calls[0].cancelled.is_set()


@pytest.mark.parametrize("before", [[], [[LOST]]])
def test_leaving_before_the_head_cancels_the_question(before: list[Any]) -> None:
    handle = TokenizerHandle(*before, [WAIT])

    async def leave(client: TokenizerClient) -> None:
        asking = asyncio.ensure_future(client.open(REQUEST))
        await settle()
        assert not handle.calls[-1].cancelled.is_set()
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()

    run(handle, leave)
    assert handle.calls[-1].cancelled.is_set()


def test_leaving_after_the_head_cancels_the_question() -> None:
    handle = TokenizerHandle([HEAD, b"a", WAIT])

    async def leave(client: TokenizerClient) -> None:
        response = await client.open(REQUEST)
        assert await anext(response) == b"a"
        response.cancel()

    run(handle, leave)
    assert handle.calls[0].cancelled.is_set()
