import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Scope

from deployments.errors import InvalidRequestError, PayloadTooLargeError, SlowBodyError
from deployments.ingress.middleware.body import read_body
from tests.aio import run

DEADLINE_S = 30.0


def scope(*headers: tuple[bytes, bytes]) -> Scope:
    return {"type": "http", "headers": list(headers)}


class Client:
    """Sends its chunks, then leaves if it has not said that the last one was the last."""

    def __init__(self, *chunks: bytes, is_complete: bool = True) -> None:
        self.unread: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        self.unread.append({"type": "http.request"} if is_complete else {"type": "http.disconnect"})

    async def __call__(self) -> Message:
        return self.unread.pop(0)


@given(st.lists(st.binary(max_size=10), max_size=10))
def test_the_body_is_read_whole(chunks: list[bytes]) -> None:
    assert run(read_body(scope(), Client(*chunks), 100, DEADLINE_S)) == b"".join(chunks)


def test_a_body_of_exactly_the_limit_is_read() -> None:
    assert run(read_body(scope((b"content-length", b"10")), Client(b"0123456789"), 10, DEADLINE_S)) == b"0123456789"


def test_a_body_that_is_declared_too_large_is_not_read_at_all() -> None:
    client = Client(b"0123456789+")
    with pytest.raises(PayloadTooLargeError, match="10 bytes"):
        run(read_body(scope((b"host", b"x"), (b"content-length", b"11")), client, 10, DEADLINE_S))
    assert len(client.unread) == 2


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"1")], [(b"content-length", b"-5")]])
def test_a_body_that_turns_out_too_large_is_read_no_further(headers: list[tuple[bytes, bytes]]) -> None:
    client = Client(b"012345", b"012345", b"012345")
    with pytest.raises(PayloadTooLargeError):
        run(read_body(scope(*headers), client, 10, DEADLINE_S))
    assert len(client.unread) == 2


def test_a_length_of_thousands_of_digits_is_too_large() -> None:
    with pytest.raises(PayloadTooLargeError):
        run(read_body(scope((b"content-length", b"9" * 5000)), Client(b""), 10, DEADLINE_S))


def test_a_client_that_leaves_half_way_is_not_taken_for_a_short_body() -> None:
    with pytest.raises(InvalidRequestError, match="left"):
        run(read_body(scope(), Client(b"{}", is_complete=False), 10, DEADLINE_S))


def test_a_body_that_is_late_is_408() -> None:
    async def silence() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(SlowBodyError, match=r"0\.01 s"):
        run(read_body(scope(), silence, 100, 0.01))
