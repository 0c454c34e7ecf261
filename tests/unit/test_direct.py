"""An engine's replica as its own front: the gateway's policy in it, and no handle between."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from config.models import GatewaySettings
from deployments.direct.front import DirectFront
from deployments.direct.local import EngineLostError, LocalEngine, LocalModel
from deployments.errors import EngineUnavailableError, InternalError, InvalidRequestError, ServingError
from deployments.haproxy_models import RETRIED_HEADER, RETRY_STATUS
from deployments.ingress.budget import Budget
from deployments.instance_types import Policy
from deployments.types import Accepted, EngineStats, HttpHead, HttpRequest, Usage
from tests.aio import run, until
from tests.fakes import JSON, model_info

PREFIX = "/models/a"
CHAT = f"{PREFIX}/v1/chat/completions"
BODY = {"model": "a", "messages": [{"role": "user", "content": "b"}]}
REQUEST = HttpRequest("POST", "/v1/chat/completions", b"", (), b"{}")
Item = Accepted | HttpHead | bytes | Usage


class Script:
    """An engine that gives these items, raising those that are errors, and remembers its requests."""

    def __init__(self, *items: Item | Exception) -> None:
        self.items = items
        self.requests: list[HttpRequest] = []
        self.has_ended = False

    async def stream_http(self, request: HttpRequest) -> AsyncGenerator[Item, None]:
        self.requests.append(request)
        try:
            for item in self.items:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.has_ended = True

    async def probe(self) -> float:
        return 0.5

    async def stats(self) -> EngineStats:
        return EngineStats(1, 2, 0.5)

    @property
    def engine(self) -> LocalEngine:
        return LocalEngine(self.stream_http, self.probe, self.stats)


class Recorded:
    """A Recorder that keeps what it is told."""

    def __init__(self) -> None:
        self.counts: list[tuple[str, str, int, str]] = []

    def count(self, route: str, model: str, status: int, error: str) -> None:
        self.counts.append((route, model, status, error))

    def record(self, budget: Budget) -> None:
        """Take no notice of it."""


def whole(*chunks: bytes) -> tuple[Item, ...]:
    return (Accepted(), HttpHead(200, JSON), *chunks, Usage(3, 4))


def front_of(script: Script, recorder: Recorded | None = None) -> DirectFront:
    model = LocalModel(script.engine, model_info("a", "/v1/chat/completions", "/v1/completions"))
    return DirectFront(model, PREFIX, recorder or Recorded(), {})


def policy(version: int = 1, **settings: Any) -> Policy:
    return Policy(version, GatewaySettings(**settings), ())


async def ask(
    front: DirectFront, path: str = CHAT, key: str = "", retried: str = str(RETRY_STATUS), **body: Any
) -> httpx.Response:
    transport = httpx.ASGITransport(front)
    headers = {RETRIED_HEADER: retried} | ({"authorization": f"Bearer {key}"} if key else {})
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.post(path, json={**BODY, **body}, headers=headers)


def test_nobody_is_let_in_before_the_policy_is_known() -> None:
    script = Script(*whole(b"{}"))
    answer = run(ask(front_of(script)))
    assert answer.status_code == RETRY_STATUS  # another replica may know; if none does, HAProxy makes it 503
    assert answer.headers["retry-after"]
    assert answer.json()["error"]["type"] == "server_error"
    assert not script.requests


def test_an_answer_is_the_engines_and_the_engine_sees_no_prefix() -> None:
    script, recorder = Script(*whole(b'{"a": ', b"1}")), Recorded()
    front = front_of(script, recorder)
    front.take(policy())
    answer = run(ask(front))
    assert (answer.status_code, answer.content) == (200, b'{"a": 1}')
    assert [request.path for request in script.requests] == ["/v1/chat/completions"]
    assert recorder.counts == [("/v1/chat/completions", "a", 200, "")]


@pytest.mark.parametrize(
    ("path", "fields", "status", "code"),
    [
        (CHAT, {"model": "b"}, 404, "model_not_found"),
        (CHAT, {"model": 3}, 400, None),
        (CHAT, {"messages": [], "max_tokens": 10**9}, 400, None),
        (f"{PREFIX}/v1/embeddings", {}, 404, None),
        (f"{PREFIX}/api/v1/instances", {}, 404, None),
        (f"{PREFIX}/metrics", {}, 404, None),
        (f"{PREFIX}", {}, 404, None),
        ("/models/ab/v1/chat/completions", {}, 404, None),
    ],
)
def test_what_is_wrong_is_refused_as_the_gateway_does(path: str, fields: Any, status: int, code: str | None) -> None:
    script = Script(*whole(b"{}"))
    front = front_of(script)
    front.take(policy())
    answer = run(ask(front, path, **fields))
    assert answer.status_code == status, answer.text
    if code:
        assert answer.json()["error"]["code"] == code
    assert not script.requests


def test_keys_hold_and_change_without_a_restart() -> None:
    front = front_of(Script(*whole(b"{}")))
    first, second = ({"inference_keys": key} for key in ("sk-one-one-one-one", "sk-two-two-two-two"))

    async def statuses() -> list[int]:
        keys = ("", "sk-one-one-one-one", "sk-two-two-two-two")
        return [(await ask(front, key=key)).status_code for key in keys]

    front.take(policy(auth=first))
    assert run(statuses()) == [401, 200, 401]
    front.take(policy(2, auth=second))
    assert run(statuses()) == [401, 401, 200]


def test_requests_that_are_under_way_count_against_the_same_bound_until_the_settings_change() -> None:
    front = front_of(Script(*whole(b"{}")))
    settings = policy()
    front.take(settings)
    app = front._app
    front.take(Policy(2, settings.settings, ()))
    assert front._app is app


async def chunks_of(engine: LocalEngine) -> tuple[bytes, Usage | None]:
    response = await engine.open(REQUEST)
    body = b"".join([chunk async for chunk in response])
    return body, response.usage


def test_a_response_is_read_to_its_cost() -> None:
    script = Script(*whole(b"a", b"b"))
    assert run(chunks_of(script.engine)) == (b"ab", Usage(3, 4))


def test_leaving_a_response_ends_it_in_the_engine() -> None:
    script = Script(*whole(b"a", b"b"))

    async def leave() -> None:
        response = await script.engine.open(REQUEST)
        assert await anext(aiter(response)) == b"a"
        response.cancel()
        await until(lambda: script.has_ended)

    run(leave())


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ((EngineUnavailableError("gone"),), EngineLostError),
        ((Accepted(), EngineUnavailableError("gone")), EngineLostError),
        ((Accepted(), InvalidRequestError("bad")), InvalidRequestError),
        ((Accepted(), RuntimeError("secret")), InternalError),
        ((Accepted(), HttpHead(200, JSON), b"a", EngineUnavailableError("gone")), EngineUnavailableError),
        ((Accepted(), HttpHead(200, JSON), b"a", RuntimeError("secret")), InternalError),
    ],
)
def test_errors_are_ours(items: tuple[Any, ...], expected: type[ServingError]) -> None:
    with pytest.raises(ServingError) as raised:
        run(chunks_of(Script(*items).engine))
    assert type(raised.value) is expected
    assert "secret" not in str(raised.value)


def test_an_engine_that_is_lost_before_it_answers_says_so_to_haproxy() -> None:
    front = front_of(Script(Accepted(), EngineUnavailableError("The engine died.", None, 1)))
    front.take(policy())
    answer = run(ask(front))
    assert answer.status_code == RETRY_STATUS
    assert answer.json()["error"]["type"] == "server_error"
    assert answer.headers["retry-after"] == "1"


def test_who_does_not_come_through_our_haproxy_is_told_what_clients_understand() -> None:
    lost = EngineUnavailableError("The engine died.", None, 1)
    for script in (Script(Accepted(), lost), Script(*whole(b"{}"))):
        front = front_of(script)
        if script.items[-1] is lost:
            front.take(policy())
        answer = run(ask(front, retried=""))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"


def test_the_end_of_a_request_that_is_cancelled_while_it_waits_is_waited_for_by_nobody() -> None:
    script = Script(*whole(b"a"))
    forever = asyncio.Event()

    async def stream(request: HttpRequest) -> AsyncGenerator[Item, None]:
        yield Accepted()
        try:
            await forever.wait()
        finally:
            script.has_ended = True
        yield b""

    async def leave() -> None:
        task = asyncio.ensure_future(LocalEngine(stream, script.probe, script.stats).open(REQUEST))
        await asyncio.sleep(0)
        task.cancel()
        await until(lambda: script.has_ended)
        assert task.cancelled()

    run(leave())
