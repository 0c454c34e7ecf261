from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from deployments.ingress.middleware.request_id import RequestId
from tests.aio import run

Pairs = list[tuple[bytes, bytes]]


class Exchange:
    """One request through the middleware: what the application saw, what the client got."""

    def __init__(self, headers: Pairs, answer: Pairs, server_echoes: bool) -> None:
        self.scope: Scope = {}
        self.sent: list[Message] = []
        self._answer = answer
        run(RequestId(self._app, server_echoes)({"type": "http", "headers": headers}, self._receive, self._send))
        self.seen_by_app = [value for name, value in self.scope["headers"] if name == b"x-request-id"]
        self.seen_by_client = [v.decode() for k, v in self.sent[0]["headers"] if k.lower() == b"x-request-id"]
        self.logged_as: Any = self.scope["state"]["request_id"]

    async def _app(self, scope: Scope, _receive: Receive, send: Send) -> None:
        self.scope = scope
        await send({"type": "http.response.start", "status": 200, "headers": list(self._answer)})

    async def _receive(self) -> Message:
        raise AssertionError("nothing to read")

    async def _send(self, message: Message) -> None:
        self.sent.append(message)


def exchange(*given: bytes, answer: Pairs | None = None, server_echoes: bool = False) -> Exchange:
    return Exchange([(b"x-request-id", value) for value in given], answer or [], server_echoes)


@pytest.mark.parametrize("given", [b"abc", b"A-1._z", b"x" * 128])
def test_a_good_id_is_kept_everywhere(given: bytes) -> None:
    result = exchange(given)
    assert result.seen_by_app == [given]
    assert result.seen_by_client == [given.decode()]
    assert result.logged_as == given.decode()


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 129, b"a\r\nset-cookie: x", "é".encode(), b"${jndi:x}"])
def test_a_bad_id_is_replaced_everywhere(given: bytes) -> None:
    result = exchange(given)
    assert result.seen_by_app == [result.logged_as.encode()]
    assert result.seen_by_client == [result.logged_as]
    assert result.logged_as
    assert result.logged_as != given.decode()


def test_each_request_without_an_id_gets_its_own() -> None:
    first, second = exchange(), exchange()
    assert first.seen_by_client == [first.logged_as]
    assert first.seen_by_client != second.seen_by_client


def test_only_one_id_goes_on_and_comes_back() -> None:
    result = exchange(b"first", b"second", answer=[(b"x-request-id", b"engine's")])
    assert result.seen_by_app == [b"first"]
    assert result.seen_by_client == ["first"]


def test_other_headers_are_untouched() -> None:
    headers = [(b"accept", b"a"), (b"accept", b"b"), (b"x-request-id", b"r")]
    result = Exchange(headers, [(b"set-cookie", b"1"), (b"set-cookie", b"2")], server_echoes=False)
    assert sorted(result.scope["headers"]) == sorted(headers)
    assert [pair for pair in result.sent[0]["headers"] if pair[0] == b"set-cookie"] == [
        (b"set-cookie", b"1"),
        (b"set-cookie", b"2"),
    ]


def test_an_id_that_the_server_echoes_is_not_echoed_twice() -> None:
    result = exchange(b"abc", server_echoes=True)
    assert result.seen_by_app == [b"abc"]
    assert result.seen_by_client == []


def test_other_protocols_pass_through() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope)

    async def receive() -> Message:
        return {}

    async def send(_message: Message) -> None:
        raise AssertionError

    run(RequestId(app)({"type": "lifespan"}, receive, send))
    assert seen == [{"type": "lifespan"}]
