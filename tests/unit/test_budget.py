import asyncio
import contextlib
import json
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from config.limits import Deadlines
from deployments.ingress.budget import Budget
from deployments.ingress.middleware.timing import Timing
from deployments.ingress.relay import Relay
from deployments.types import EngineTimes, Headers, HttpRequest, Usage
from tests.aio import run
from tests.fakes import EVENTS, JSON, ScriptedEngine, ScriptedResponse

REQUEST = HttpRequest("POST", "/v1/chat/completions", b"", (), b"{}")
TIMES = EngineTimes(0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
TELL = (b"x-latency-budget", b"1")


def answered(upstream: ScriptedResponse, headers: list[tuple[bytes, bytes]], pause_s: float = 0.0) -> Any:
    """Relay a response behind the Timing middleware; returns what was sent, and what was recorded.

    A ValueError that leaves it is passed over.
    """
    sent: list[Message] = []
    recorded: list[Budget] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["budget"].mark("policy")
        await Relay(ScriptedEngine(upstream), REQUEST, Deadlines(), True, "demo")(scope, receive, send)

    async def receive() -> Message:
        raise AssertionError("the request was read before")

    async def send(message: Message) -> None:
        await asyncio.sleep(pause_s)
        sent.append(message)

    with contextlib.suppress(ValueError):
        run(Timing(app, recorded.append)({"type": "http", "headers": headers}, receive, send))
    return sent, recorded


def reported(sent: list[Message]) -> dict[str, float]:
    headers = dict(sent[0]["headers"])
    text = headers.get(b"x-latency-budget") or sent[-1]["body"].removeprefix(b": latency-budget ")
    found: dict[str, float] = json.loads(text)
    return found


@pytest.mark.parametrize("headers", [JSON, EVENTS])
def test_who_asks_is_told_what_the_engine_said(headers: Headers) -> None:
    sent, recorded = answered(ScriptedResponse([b"a", b"b"], headers, cost=Usage(1, 2, TIMES)), [TELL])
    budget = reported(sent)
    assert (budget["guided_wait_s"], budget["decode_s"]) == (0.02, 0.05)
    assert budget["detokenize_and_serialise_s"] + budget["flush_s"] >= 0.06
    assert sum(seconds for name, seconds in budget.items() if name != "total_s") == pytest.approx(
        budget["total_s"], abs=1e-4
    )
    assert b"".join(message["body"] for message in sent[1:]).startswith(b"ab")
    assert recorded[0].model == "demo"


@pytest.mark.parametrize("headers", [[], [(b"x-latency-budget", b"0")]])
def test_who_does_not_ask_gets_the_engines_bytes(headers: Any) -> None:
    sent, recorded = answered(ScriptedResponse([b"a", b"b"], EVENTS, cost=Usage(1, 2, TIMES)), headers)
    assert [message["body"] for message in sent[1:]] == [b"a", b"b", b""]
    assert recorded[0].parts()["decode"] == 0.05


def test_what_a_slow_client_costs_is_no_work_of_the_engines() -> None:
    chunks = [b"a"] * 20
    _, (budget,) = answered(ScriptedResponse(chunks, EVENTS, cost=Usage(1, 2, TIMES)), [], pause_s=0.005)
    assert budget.parts()["detokenize_and_serialise"] < 0.02
    assert budget.parts()["flush"] > 0.04


@pytest.mark.parametrize(
    "upstream",
    [
        ScriptedResponse([b"no"], JSON, status=400, cost=Usage(0, 0, TIMES)),
        ScriptedResponse([b"a", ValueError("broken")], EVENTS),
    ],
    ids=["refused", "broken off"],
)
def test_only_what_was_answered_to_the_end_is_recorded(upstream: ScriptedResponse) -> None:
    sent, recorded = answered(upstream, [])
    assert len(sent) >= 2
    assert recorded == []


def test_without_word_of_an_engine_the_rest_is_one_part() -> None:
    _, (budget,) = answered(ScriptedResponse([b"a"], JSON, cost=Usage(1, 2)), [])
    assert list(budget.parts()) == ["policy", "read_and_parse", "queue", "answer", "flush"]
    assert sum(budget.parts().values()) == pytest.approx(budget.total_s)
