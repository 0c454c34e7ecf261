import asyncio
import contextlib
import json
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.limits import Deadlines
from deployments.errors import ModelNotFoundError
from deployments.ingress.budget import Budget
from deployments.ingress.middleware.errors import error_response
from deployments.ingress.middleware.observing import Observing
from deployments.ingress.relay import Relay
from deployments.types import EngineTimes, Headers, HttpRequest, Usage
from tests.aio import run
from tests.fakes import EVENTS, JSON, ScriptedEngine, ScriptedResponse

REQUEST = HttpRequest("POST", "/v1/chat/completions", b"", (), b"{}")
TIMES = EngineTimes(0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
TELL = (b"x-latency-budget", b"1")


class ListRecorder:
    """A Recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.budgets: list[Budget] = []
        self.counts: list[tuple[str, str, int, str]] = []

    def count(self, route: str, model: str, status: int, error: str) -> None:
        self.counts.append((route, model, status, error))

    def record(self, budget: Budget) -> None:
        self.budgets.append(budget)


def answered(upstream: ScriptedResponse, headers: list[tuple[bytes, bytes]], pause_s: float = 0.0) -> Any:
    """Relay a response behind the Timing middleware; returns what was sent, and what was recorded.

    A ValueError that leaves it is passed over.
    """
    sent: list[Message] = []
    recorder = ListRecorder()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["budget"].mark("policy")
        await Relay(ScriptedEngine(upstream), REQUEST, Deadlines(), True, "demo")(scope, receive, send)

    async def receive() -> Message:
        raise AssertionError("the request was read before")

    async def send(message: Message) -> None:
        await asyncio.sleep(pause_s)
        sent.append(message)

    with contextlib.suppress(ValueError):
        scope = {"type": "http", "path": REQUEST.path, "headers": headers}
        run(Observing(app, recorder, [REQUEST.path], ())(scope, receive, send))
    return sent, recorder.budgets


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


def counted(app: ASGIApp, path: str = "/v1/models") -> tuple[str, str, int, str]:
    """Return what is counted of a request, whatever becomes of it."""
    recorder = ListRecorder()

    async def nothing(*_: object) -> Any:
        return None

    with contextlib.suppress(ValueError, asyncio.CancelledError):
        run(Observing(app, recorder, ["/v1/models"], ("/api/v1/",))({"type": "http", "path": path}, nothing, nothing))
    (count,) = recorder.counts
    return count


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    scope["state"]["model"] = "demo"
    await Response(b"{}")(scope, receive, send)


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
    await error_response(scope["path"], ModelNotFoundError("no"))(scope, receive, send)


async def break_down(scope: Scope, receive: Receive, send: Send) -> None:
    raise ValueError


async def leave(scope: Scope, receive: Receive, send: Send) -> None:
    raise asyncio.CancelledError


def test_each_request_is_counted_by_how_it_ended() -> None:
    assert counted(ok) == ("/v1/models", "demo", 200, "")
    assert counted(refuse) == ("/v1/models", "", 404, "model_not_found")
    assert counted(break_down) == ("/v1/models", "", 0, "server_error")
    assert counted(leave) == ("/v1/models", "", 0, "client_left")


def test_paths_that_a_client_makes_up_are_one_route() -> None:
    assert counted(ok, "/api/v1/instances/some-name")[0] == "/api/v1/*"
    assert counted(ok, "/v1/models/../../etc")[0] == "other"
