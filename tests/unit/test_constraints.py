"""A response does not begin before its constraints can be had."""

import asyncio
import json
from typing import Any

import pytest

from deployments.engine import constraints
from deployments.engine.asgi import stream_asgi
from deployments.engine.constraints import constrained
from deployments.engine.failures import refusal
from deployments.engine.metering import metered
from deployments.engine.receipts import with_receipts
from deployments.errors import InvalidRequestError, OverloadedError
from deployments.guided_types import Receipt
from deployments.types import GuidedOptions, HttpHead, HttpRequest
from tests.aio import run

RECEIPT = Receipt("0" * 64, "json", "xgrammar", 0.0123, 99, is_cached=False, enforced=("type",))


class Waiting:
    def __init__(self, outcome: Receipt | Exception, is_ready: bool = True) -> None:
        self.outcome = outcome
        self.is_ready = is_ready
        self.num_left = 0

    async def ready(self) -> Receipt:
        await asyncio.sleep(0)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def leave(self) -> None:
        self.num_left += 1


def test_what_a_request_makes_is_found_from_outside() -> None:
    async def main() -> None:
        tickets = [Waiting(RECEIPT), Waiting(RECEIPT)]

        async def app(scope: Any, receive: Any, send: Any) -> None:
            for ticket in tickets:
                request = constraints.current()
                assert request is not None
                request.add(ticket)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x"})

        _, context = metered()
        held = constrained(context, GuidedOptions())
        request = HttpRequest("POST", "/", b"", (), b"")
        async for _ in stream_asgi(app, request, max_buffered_bytes=9, abort_timeout_s=1, context=context):
            pass
        assert await held.ready() == [RECEIPT, RECEIPT]
        held.leave()
        assert [ticket.num_left for ticket in tickets] == [1, 1]

    run(main())


def test_outside_of_a_request_there_is_none() -> None:
    assert constraints.current() is None


def test_the_first_refusal_is_the_answer() -> None:
    async def main() -> None:
        _, context = metered()
        held = constrained(context, GuidedOptions())
        held.add(Waiting(RECEIPT))
        held.add(Waiting(InvalidRequestError("too deep")))
        held.add(Waiting(OverloadedError("full"), is_ready=False))
        with pytest.raises(InvalidRequestError):
            await held.ready()
        with pytest.raises(InvalidRequestError):
            await held.known()

    run(main())


def test_what_is_not_ready_is_not_waited_for_when_the_answer_is_an_error_anyway() -> None:
    async def main() -> None:
        _, context = metered()
        held = constrained(context, GuidedOptions())
        held.add(Waiting(OverloadedError("full"), is_ready=False))
        assert await held.known() == []

    run(main())


def test_forced_calls_of_tools_that_are_not_strict_are_lenient() -> None:
    _, context = metered()
    held = constrained(context, GuidedOptions(receipt=True))
    held.be_lenient()
    assert held.options == GuidedOptions(strict=False, receipt=True)


def test_a_refusal_is_a_whole_response() -> None:
    head, body = refusal(OverloadedError("full", "model", 7))
    assert (head.status, dict(head.headers)[b"retry-after"]) == (429, b"7")
    assert json.loads(body)["error"]["message"] == "full"
    assert b"retry-after" not in dict(refusal(InvalidRequestError("bad"))[0].headers)


def test_receipts_are_headers_one_for_each_constraint() -> None:
    head = with_receipts(HttpHead(200, ((b"a", b"b"),)), [RECEIPT, RECEIPT])
    assert head.headers[0] == (b"a", b"b")
    ((name, value),) = head.headers[1:]
    assert name == b"x-guided-receipt"
    assert json.loads(value) == {
        "id": "json-" + "0" * 64,
        "kind": "json",
        "backend": "xgrammar",
        "bytes": 99,
        "compile_ms": 12.3,
        "cached": False,
        "enforced": ["type"],
        "ignored": [],
    }
