"""Instances as models: what is started by a request, what is not, and how long an instance counts as in use."""

import asyncio
import contextlib
import itertools
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from config.auth import Key, digest
from config.limits import Deadlines
from config.models import GatewaySettings
from deployments.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    EngineUnavailableError,
    InstanceStoppingError,
    InvalidRequestError,
    MaxInstancesError,
    ModelNotFoundError,
    ServingError,
    StartFailedError,
)
from deployments.ingress import on_demand
from deployments.ingress.choice import choose
from deployments.ingress.on_demand import Catalog, Held, InstanceModel, answering, engine_of
from deployments.ingress.relay import COMMENT
from deployments.ingress.services import Model, Response
from deployments.instance_types import Instance
from deployments.types import HttpRequest, Usage
from tests.aio import run, settle, until
from tests.fakes import (
    EVENTS,
    FixedDirectory,
    FixedModel,
    ScriptedEngine,
    ScriptedInstances,
    ScriptedResponse,
    ScriptedTokenizer,
    ask,
    get,
    http_client,
    instance,
    make_api,
    managed_models,
    model_info,
    post,
)

CHAT = "/v1/chat/completions"
REQUEST = HttpRequest("POST", CHAT, b"", (), b"{}")
QUICK = GatewaySettings.model_validate({"instances": {"poll_interval_s": 0.05}})
LOST = EngineUnavailableError("The engine was lost.", None, 1)


def chat(model: str | None = "a", **fields: Any) -> httpx.Request:
    return post(CHAT, {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields})


def error_code(response: httpx.Response) -> str | None:
    code: str | None = response.json()["error"]["code"]
    return code


class GatedEngine(ScriptedEngine):
    """Answers when the test lets it."""

    def __init__(self, answer: ScriptedResponse | Exception | None = None) -> None:
        super().__init__(answer or ScriptedResponse([b"{}"]))
        self.gate = asyncio.Event()

    async def open(self, request: HttpRequest) -> Response:
        self.requests.append(request)
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_request_starts_what_it_names_and_is_answered() -> None:
    engine, manager = ScriptedEngine(ScriptedResponse([b'{"a": 1}'])), ScriptedInstances(instance("a"))
    manager.engine = engine
    response = ask(make_api(manager=manager), chat())
    assert (response.status_code, response.content) == (200, b'{"a": 1}')
    assert manager.asked("ensure") == ["a"]
    assert len(engine.requests) == 1
    assert not +manager.in_use


def test_the_name_may_be_followed_by_anything() -> None:
    manager = ScriptedInstances(instance("a"))
    assert ask(make_api(manager=manager), chat("a/some/thing")).status_code == 200
    assert manager.asked("ensure") == ["a"]


def test_many_who_wait_ask_once() -> None:
    manager = ScriptedInstances(instance("a"), instance("b"))
    manager.gate.clear()

    async def main() -> list[httpx.Response]:
        async with http_client(make_api(manager=manager)) as client:
            asking = [asyncio.ensure_future(client.send(chat(name))) for name in "aaaaabbbbb" * 10]
            await until(lambda: len(manager.calls) == 2)
            await settle()
            manager.gate.set()
            return await asyncio.gather(*asking)

    assert {response.status_code for response in run(main())} == {200}
    assert sorted(manager.asked("ensure")) == ["a", "b"]
    assert manager.directory.num_looks <= 2
    assert not +manager.in_use


def test_what_runs_is_asked_at_once() -> None:
    engine, manager = ScriptedEngine(), ScriptedInstances(instance("a", "running"))
    assert ask(make_api(FixedModel("a", engine), manager=manager), chat()).status_code == 200
    assert (manager.calls, manager.directory.num_looks, len(engine.requests)) == ([], 0, 1)


@pytest.mark.parametrize("status", ["stopped", "restarting", "shutting_down", "failed"])
def test_what_is_to_go_is_not_asked_though_it_still_runs(status: Any) -> None:
    """The manager ends it when every ingress replica has heard so, and has no request for it under way."""
    going, next_one = ScriptedEngine(), ScriptedEngine()
    manager = ScriptedInstances(instance("a", status))
    manager.engine = next_one
    assert ask(make_api(FixedModel("a", going), manager=manager), chat()).status_code == 200
    assert (len(going.requests), len(next_one.requests)) == (0, 1)


@pytest.mark.parametrize(
    ("status", "application", "words", "code"),
    [
        ("stopped", None, "is stopped", "instance_not_running"),
        ("stopped", "stopping", "is stopped", "instance_not_running"),
        ("failed", None, "has failed", "instance_not_running"),
        ("restarting", "running", "is restarting", "instance_not_running"),
        ("running", "starting", "is loading", "instance_not_running"),
        ("running", None, "is loading", "instance_not_running"),
        ("shutting_down", "running", "is shutting down", "instance_shutting_down"),
    ],
)
def test_what_is_not_started_on_demand_is_503(status: Any, application: str | None, words: str, code: str) -> None:
    manager = ScriptedInstances(instance("a", status, on_demand_start=False))
    running = [FixedModel("a", status=application)] if application else []
    response = ask(make_api(*running, manager=manager), chat())
    assert response.status_code == 503
    assert words in response.json()["error"]["message"]
    assert error_code(response) == code
    assert int(response.headers["retry-after"]) > 0
    assert not manager.asked("ensure")


@pytest.mark.parametrize(
    "error",
    [
        InstanceStoppingError("shutting down", "model", 5),
        StartFailedError("The instance `a` failed to start."),
        MaxInstancesError("3 instances run."),
        DeadlineExceededError("not ready within 600 s"),
        EngineUnavailableError("no manager", None, 5),
    ],
)
def test_a_start_that_is_refused_is_answered_with_its_error(error: ServingError) -> None:
    manager = ScriptedInstances(instance("a"))
    manager.refusal = error
    if isinstance(error, DeadlineExceededError):
        settings = GatewaySettings.model_validate({"instances": {"on_demand_start_timeout_s": 1e-9}})
    else:
        settings = GatewaySettings()
    response = ask(make_api(manager=manager, settings=settings), chat())
    assert (response.status_code, error_code(response)) == (error.status, error.code)
    assert manager.asked("ensure") == ["a"]
    assert not +manager.in_use


def test_an_instance_that_is_deleted_meanwhile_is_404() -> None:
    manager = ScriptedInstances(instance("a"))
    del manager.instances["a"]
    response = ask(make_api(manager=manager), chat())
    assert (response.status_code, error_code(response)) == (404, "invalid_instance")


def test_the_applications_are_read_until_the_new_one_is_seen() -> None:
    manager = ScriptedInstances(instance("a"))

    engine = ScriptedEngine()
    manager.engine = engine
    ready = manager.directory.refresh

    async def refresh() -> None:
        if manager.directory.num_looks < 2:
            manager.directory.num_looks += 1
        else:
            await ready()

    manager.directory.refresh = refresh  # type: ignore[method-assign]
    assert ask(make_api(manager=manager, settings=QUICK), chat()).status_code == 200
    assert len(engine.requests) == 1


def test_an_application_that_is_never_seen_is_given_up() -> None:
    settings = GatewaySettings.model_validate(
        {"instances": {"poll_interval_s": 0.05, "on_demand_start_timeout_s": 0.01}}
    )
    manager = ScriptedInstances(instance("a"))

    async def refresh() -> None:
        pass

    manager.directory.refresh = refresh  # type: ignore[method-assign]
    response = ask(make_api(manager=manager, settings=settings), chat())
    assert (response.status_code, error_code(response)) == (504, "deadline_exceeded")
    assert "on_demand_start_timeout_s" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "path", "status"),
    [({"max_tokens": 10**6}, CHAT, 400), ({"no_such_field": 1}, CHAT, 400), ({}, "/v1/embeddings", 404)],
)
def test_what_only_the_model_can_tell_is_checked_after_its_start(
    fields: dict[str, Any], path: str, status: int
) -> None:
    fields_of_chat = '{"paths": {"%s": {"post": {"requestBody": {"content": {"application/json": {"schema": %s}}}}}}}'
    openapi = fields_of_chat % (CHAT, '{"properties": {"model": {}, "messages": {}, "max_tokens": {}}}')
    manager, engine = ScriptedInstances(instance("a")), ScriptedEngine()
    manager.engine, manager.info = engine, model_info("a", CHAT, openapi=openapi)
    request = post(path, {"model": "a", "messages": [], **fields})
    assert ask(make_api(manager=manager), request).status_code == status
    assert manager.asked("ensure") == ["a"]
    assert not engine.requests
    assert not +manager.in_use


@pytest.mark.parametrize("fields", [{"n": 10**6}, {"stream": "yes"}, {"priority": 1}, {"stop": 5}])
def test_what_is_wrong_with_any_model_starts_nothing(fields: dict[str, Any]) -> None:
    manager = ScriptedInstances(instance("a"))
    assert ask(make_api(manager=manager), chat(**fields)).status_code == 400
    assert not manager.calls


def test_a_request_to_what_runs_is_checked_once() -> None:
    checked: list[Model] = []
    manager = ScriptedInstances(instance("a", "running"))
    catalog = managed_models(manager, GatewaySettings(), FixedModel("a", info=model_info("a", CHAT)))

    async def main() -> None:
        await answering(catalog.models()["a"], engine_of, 1, checked.append).open(REQUEST)

    run(main())
    assert len(checked) == 1


def test_one_that_is_stopped_for_another_ones_sake_is_started_again() -> None:
    evicted, manager = ScriptedEngine(LOST), ScriptedInstances(instance("a", "running"))
    api = make_api(FixedModel("a", evicted), manager=manager)
    manager.move("a", status="stopped")  # the snapshot does not say so yet
    assert ask(api, chat()).status_code == 200
    assert (len(evicted.requests), manager.asked("ensure")) == (1, ["a"])
    assert not +manager.in_use


@pytest.mark.parametrize("status", ["running", "restarting", "failed"])
def test_what_kills_its_engine_is_not_sent_to_the_next_one(status: Any) -> None:
    crashed, manager = ScriptedEngine(LOST), ScriptedInstances(instance("a", "running"))
    api = make_api(FixedModel("a", crashed), manager=manager)
    manager.move("a", status=status)
    response = ask(api, chat())
    assert (response.status_code, error_code(response)) == (503, "engine_unavailable")
    assert len(crashed.requests) == 1
    assert not manager.asked("ensure")


def test_one_that_its_owner_stops_under_a_request_is_503() -> None:
    manager = ScriptedInstances(instance("a", "running"))
    api = make_api(FixedModel("a", ScriptedEngine(LOST)), manager=manager)
    manager.move("a", status="shutting_down")
    manager.refusal = InstanceStoppingError("shutting down", "model", 5)
    assert error_code(ask(api, chat())) == "instance_shutting_down"


def test_one_that_is_evicted_again_and_again_is_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GatewaySettings.model_validate({"instances": {"on_demand_start_timeout_s": 5}})
    monkeypatch.setattr(on_demand, "now_s", itertools.count().__next__)
    manager = ScriptedInstances(instance("a"))

    class Evicted(ScriptedEngine):
        async def open(self, request: HttpRequest) -> Response:
            manager.move("a", status="stopped")
            return await super().open(request)

    manager.engine = Evicted(LOST)
    response = ask(make_api(manager=manager, settings=settings), chat())
    assert (response.status_code, error_code(response)) == (503, "engine_unavailable")
    assert len(manager.asked("ensure")) > 1


def test_an_instance_is_in_use_until_its_response_is_left() -> None:
    upstream = ScriptedResponse([b"a", b"b"], EVENTS, cost=Usage(3, 2))
    manager = ScriptedInstances(instance("a", "running"))
    catalog = managed_models(manager, GatewaySettings(), FixedModel("a", ScriptedEngine(upstream)))

    async def main() -> None:
        response = await catalog.models()["a"].client.open(REQUEST)
        assert manager.in_use["a"] == 1
        assert [chunk async for chunk in response] == [b"a", b"b"]
        assert (response.head, response.usage) == (upstream.head, Usage(3, 2))
        assert manager.in_use["a"] == 1
        for _ in range(2):
            response.cancel()
            assert (manager.in_use["a"], upstream.is_cancelled) == (0, True)

    run(main())


def test_a_held_response_is_read_without_anything_of_ours_between() -> None:
    class Items(ScriptedResponse):
        def __aiter__(self) -> Any:
            return items

    items = ScriptedResponse([]).__aiter__()
    assert aiter(Held(Items([]), contextlib.ExitStack())) is items


@pytest.mark.parametrize("error", [LOST, InvalidRequestError("no"), ValueError("broken")])
def test_an_instance_that_refuses_is_not_in_use_any_more(error: Exception) -> None:
    manager = ScriptedInstances(instance("a", "running"))
    catalog = managed_models(manager, GatewaySettings(), FixedModel("a", ScriptedEngine(error)))
    with pytest.raises(type(error)):
        run(open_(catalog))
    assert not +manager.in_use


async def open_(catalog: Catalog) -> Response:
    return await catalog.models()["a"].client.open(REQUEST)


def test_who_waits_holds_an_instance_but_not_one_that_is_to_go() -> None:
    """Else it could be evicted when it has just become ready; and would never end when it is to."""
    manager = ScriptedInstances(instance("a", "shutting_down"))
    manager.gate.clear()
    catalog = managed_models(manager, GatewaySettings())

    def show(status: Any) -> int:
        manager.move("a", status=status)
        manager.show()
        catalog.starts.note_changes()
        return manager.in_use["a"]

    async def main() -> None:
        opening = [asyncio.ensure_future(open_(catalog)) for _ in range(3)]
        await until(lambda: bool(manager.calls))
        assert manager.in_use["a"] == 0
        assert [show("stopped"), show("running"), show("restarting"), show("running")] == [1, 1, 0, 1]
        engine = GatedEngine()
        manager.engine = engine
        manager.gate.set()
        await until(lambda: len(engine.requests) == 3)
        assert manager.in_use["a"] == 3
        engine.gate.set()
        for response in await asyncio.gather(*opening):
            response.cancel()
        assert not +manager.in_use

    run(main())


def test_an_instance_is_in_use_without_a_gap_from_its_start_to_its_answer() -> None:
    manager = ScriptedInstances(instance("a"))
    manager.gate.clear()
    catalog = managed_models(manager, GatewaySettings())
    seen: list[int] = []

    async def main() -> None:
        opening = asyncio.ensure_future(open_(catalog))
        await until(lambda: manager.in_use["a"] == 1)
        manager.gate.set()
        while not opening.done():
            seen.append(manager.in_use["a"])
            await asyncio.sleep(0)
        (await opening).cancel()

    run(main())
    assert min(seen) == 1
    assert not +manager.in_use


def test_a_start_goes_on_while_anybody_waits_for_it() -> None:
    manager = ScriptedInstances(instance("a"))
    manager.gate.clear()
    catalog = managed_models(manager, GatewaySettings())

    async def main() -> None:
        first, second = asyncio.ensure_future(open_(catalog)), asyncio.ensure_future(open_(catalog))
        await until(lambda: bool(manager.calls))
        await settle()
        first.cancel()
        await asyncio.wait({first})
        manager.gate.set()
        (await second).cancel()
        assert manager.asked("ensure") == ["a"]

    run(main())


def test_a_start_that_nobody_waits_for_is_no_longer_asked_for() -> None:
    manager = ScriptedInstances(instance("a"))
    manager.gate.clear()
    catalog = managed_models(manager, GatewaySettings())

    async def main() -> None:
        for _ in range(2):
            opening = asyncio.ensure_future(open_(catalog))
            await settle()
            opening.cancel()
            await asyncio.wait({opening})
            await settle()
            assert len(asyncio.all_tasks()) == 2, "this one, and the one that waits for it"
        assert manager.asked("ensure") == ["a", "a"]
        assert not +manager.in_use

    run(main())


def test_the_deadline_of_who_waited_longer_is_not_everybodys() -> None:
    manager = ScriptedInstances(instance("a"))
    manager.refusal = DeadlineExceededError("not ready within 600 s")
    manager.gate.clear()
    catalog = managed_models(manager, GatewaySettings())

    async def main() -> None:
        opening = asyncio.ensure_future(open_(catalog))
        await until(lambda: bool(manager.calls))
        manager.gate.set()
        await until(lambda: len(manager.calls) > 1)
        manager.refusal = None
        (await opening).cancel()

    run(main())


def test_a_stream_that_waits_for_a_start_is_sent_comments() -> None:
    manager = ScriptedInstances(instance("a"))
    manager.engine = ScriptedEngine(ScriptedResponse([b"data: x\n\n"], EVENTS))
    manager.gate.clear()
    api = make_api(manager=manager, settings=GatewaySettings(deadlines=Deadlines(heartbeat_s=0.01)))
    body = run(read_late(api, manager))
    assert body.startswith(COMMENT * 2)
    assert body.replace(COMMENT, b"") == b"data: x\n\n"
    assert not +manager.in_use


def test_after_comments_a_start_that_fails_is_the_streams_last_event() -> None:
    manager = ScriptedInstances(instance("a"))
    manager.refusal = StartFailedError("The instance `a` failed to start.")
    manager.gate.clear()
    api = make_api(manager=manager, settings=GatewaySettings(deadlines=Deadlines(heartbeat_s=0.01)))
    assert b'"code": "start_failed"' in run(read_late(api, manager))


async def read_late(api: FastAPI, manager: ScriptedInstances) -> bytes:
    """Ask for a stream, and let the start end when two comments have come."""
    sent: list[Any] = []
    request = chat(stream=True)
    messages = [{"type": "http.request", "body": request.content}]
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": CHAT, "query_string": b"", "headers": headers}

    async def receive() -> Any:
        return messages.pop()

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 3:
            manager.gate.set()

    await api(scope, receive, send)
    return b"".join(message["body"] for message in sent[1:])


def test_the_writing_tools_start_an_instance_too() -> None:
    tokenizer, manager = ScriptedTokenizer(), ScriptedInstances(instance("a"))
    api = make_api(manager=manager, tokenizer=tokenizer)
    assert ask(api, post("/api/highlights", {"model": "a", "doc": "Hi"})).status_code == 200
    assert manager.asked("ensure") == ["a"]
    assert [question.model for question in tokenizer.requests] == ["a"]
    assert not +manager.in_use


def test_the_writing_tools_do_not_use_what_is_to_go() -> None:
    manager = ScriptedInstances(instance("a", "shutting_down"))
    manager.refusal = InstanceStoppingError("It is shutting down.")
    response = ask(make_api(FixedModel("a"), manager=manager), get("/api/highlights?model=a&doc=Hi"))
    assert (response.status_code, response.json()) == (503, {"detail": "It is shutting down."})


def test_asking_for_a_constraint_starts_nothing() -> None:
    manager = ScriptedInstances(instance("a"))
    response = ask(make_api(manager=manager), get("/v1/grammars/x?model=a"))
    assert error_code(response) == "instance_not_running"
    assert not manager.calls


@pytest.mark.parametrize("path", [CHAT, "/v1/embeddings"])
def test_an_instance_that_was_defined_just_now_is_known(path: str) -> None:
    """On another ingress replica, perhaps: the next snapshot is half a second away."""
    manager = ScriptedInstances()
    api = make_api(manager=manager)
    manager.instances["new"] = instance("new")
    assert ask(api, post(path, {"model": "new"})).status_code == 200
    assert len(manager.asked("renew")) == 1
    manager.instances["newer"] = instance("newer")
    assert ask(api, get("/v1/models/newer")).json()["id"] == "newer"


def test_many_who_name_what_there_is_not_ask_once_or_twice() -> None:
    manager = ScriptedInstances()

    async def main() -> list[httpx.Response]:
        async with http_client(make_api(manager=manager)) as client:
            return await asyncio.gather(*(client.send(chat("nobody")) for _ in range(50)))

    assert {error_code(response) for response in run(main())} == {"model_not_found"}
    assert 1 <= len(manager.asked("renew")) <= 2


def test_news_are_no_older_than_who_asks_for_them() -> None:
    gates: list[asyncio.Event] = []

    async def renew() -> None:
        gates.append(asyncio.Event())
        await gates[-1].wait()

    async def main() -> None:
        catalog = Catalog(FixedDirectory(), ScriptedInstances(), GatewaySettings(), renew)
        first = asyncio.ensure_future(catalog.renew())
        await settle()
        others = [asyncio.ensure_future(catalog.renew()) for _ in range(3)]
        await settle()
        assert len(gates) == 1
        gates[0].set()
        await settle()
        assert first.done()
        assert not any(other.done() for other in others), "what they would be told is older than they are"
        gates[1].set()
        await asyncio.gather(*others)
        assert len(gates) == 2

    run(main())


STATES: list[tuple[Any, str | None, str, bool]] = [
    # instance, its application, the model's status, whether it can be called
    ("stopped", None, "stopped", True),
    ("stopped", "stopping", "stopped", True),
    ("running", None, "starting", True),
    ("running", "starting", "starting", True),
    ("running", "running", "running", True),
    ("running", "idle", "idle", True),
    ("restarting", "running", "restarting", True),
    ("shutting_down", "running", "stopping", False),
    ("failed", None, "failed", False),
]


@pytest.mark.parametrize(("status", "application", "shown", "is_callable"), STATES)
def test_what_an_instance_is_as_a_model(status: Any, application: str | None, shown: str, is_callable: bool) -> None:
    models = [FixedModel("a", status=application)] if application else []
    api = make_api(*models, manager=ScriptedInstances(instance("a", status)))
    (card,) = ask(api, get("/v1/models")).json()["data"]
    assert (card["id"], card["status"], card["created"], card["max_model_len"]) == ("a", shown, 1_600_000_000, None)
    assert ask(api, get("/v1/models/a")).json() == card
    assert ask(api, get("/health?model=a")).status_code == (200 if is_callable else 503)


@pytest.mark.parametrize(("status", "application", "shown", "is_callable"), STATES)
def test_without_on_demand_only_what_runs_can_be_called(
    status: Any, application: str | None, shown: str, is_callable: bool
) -> None:
    models = [FixedModel("a", status=application)] if application else []
    manager = ScriptedInstances(instance("a", status, on_demand_start=False))
    expected = 200 if status == "running" and application in ("running", "idle") else 503
    assert ask(make_api(*models, manager=manager), get("/health")).status_code == expected


def test_models_of_the_yaml_stay_what_they_are() -> None:
    engine = ScriptedEngine()
    manager = ScriptedInstances(instance("a", "running", is_declared=True), instance("b", is_declared=True))
    api = make_api(FixedModel("a", engine, info=model_info("a", CHAT)), manager=manager)
    (card,) = ask(api, get("/v1/models")).json()["data"]
    assert (card["id"], card["created"]) == ("a", 1_700_000_000)
    assert ask(api, chat()).status_code == 200
    assert not +manager.in_use
    assert ask(api, chat("b")).status_code == 404


def test_a_deep_look_wakes_nothing() -> None:
    manager = ScriptedInstances(instance("a", "running"), instance("b"))
    report = ask(make_api(FixedModel("a"), manager=manager), get("/health/deep"))
    assert (report.status_code, report.json()["models"]["b"]) == (200, {"status": "stopped"})
    assert report.json()["models"]["a"]["ok"]
    assert not manager.asked("ensure")


@pytest.mark.parametrize(("status", "application"), [("running", "starting"), ("failed", None), ("restarting", None)])
def test_a_deep_look_reports_what_does_not_run(status: Any, application: str | None) -> None:
    models = [FixedModel("a", status=application)] if application else []
    response = ask(make_api(*models, manager=ScriptedInstances(instance("a", status))), get("/health/deep"))
    assert response.status_code == 503
    assert response.json()["models"]["a"]["ok"] is False


def chosen(
    *instances: Instance, requested: str | None = None, default: str | None = None, key: Key | None = None
) -> str:
    """Choose among the YAML's models `y1` and the given instances."""
    manager = ScriptedInstances(*instances)
    catalog = managed_models(manager, GatewaySettings(), FixedModel("y1"))
    return choose(catalog.models(), key, requested, default).name


@pytest.mark.parametrize(
    ("instances", "requested", "default", "name"),
    [
        ([], None, None, "y1"),
        ([instance("a")], None, None, "y1"),
        ([instance("a"), instance("b", "failed"), instance("c", "shutting_down")], None, None, "y1"),
        ([instance("a")], None, "a", "a"),
        ([instance("a", "running")], None, "y1", "y1"),
        ([instance("a")], "a", None, "a"),
        ([instance("a")], "a/x", "y1", "a"),
    ],
)
def test_which_model_a_request_is_for(
    instances: list[Instance], requested: str | None, default: str | None, name: str
) -> None:
    assert chosen(*instances, requested=requested, default=default) == name


@pytest.mark.parametrize("status", ["running", "restarting"])
def test_a_name_is_required_when_two_run(status: Any) -> None:
    with pytest.raises(InvalidRequestError, match="required"):
        chosen(instance("a", status))


def test_a_request_without_a_name_starts_the_only_model_there_is() -> None:
    manager = ScriptedInstances(instance("a"))
    assert ask(make_api(manager=manager), chat(None)).status_code == 200
    assert manager.asked("ensure") == ["a"]
    two = ScriptedInstances(instance("a"), instance("b"))
    assert ask(make_api(manager=two), chat(None)).status_code == 400


ONLY_A = Key(name="k", sha256=digest("k" * 16), instances=frozenset({"a", "gone"}))


def test_a_key_opens_the_models_that_it_names() -> None:
    assert chosen(instance("a"), requested="a", key=ONLY_A) == "a"
    assert chosen(instance("a"), requested="a/x", key=ONLY_A) == "a"
    assert chosen(instance("a"), key=ONLY_A) == "a", "the only one that it opens"
    for name in ("y1", "y1/a"):
        with pytest.raises(AccessDeniedError):
            chosen(instance("a"), requested=name, key=ONLY_A)
    with pytest.raises(AccessDeniedError):
        chosen(instance("a"), instance("gone"), default="y1", key=ONLY_A)
    with pytest.raises(ModelNotFoundError) as caught:
        chosen(instance("a"), requested="b", key=ONLY_A)
    assert "y1" not in caught.value.message, "it does not tell of the others"


OPEN, HELD = "sk-all-0123456789abcdef", "sk-only-a-0123456789abcdef"
KEYED = GatewaySettings.model_validate(
    {"auth": {"keys": [{"name": "all", "key": OPEN}, {"name": "held", "key": HELD, "instances": ["a"]}]}}
)


@pytest.mark.parametrize(
    "request_",
    [
        chat("b"),
        post("/api/highlights", {"model": "b", "doc": "Hi"}),
        get("/api/highlights?model=b&doc=Hi"),
        get("/v1/grammars/x?model=b"),
        get("/v1/models/b"),
        get("/health/deep?model=b"),
        *(post(path, {"model": "b"}) for path in ("/v1/grammars", "/v1/responses", "/tokenize", "/v1/messages")),
    ],
)
def test_a_key_that_is_held_to_other_models_is_403_on_every_route(request_: httpx.Request) -> None:
    manager = ScriptedInstances(instance("a"), instance("b"))
    request_.headers["authorization"] = f"Bearer {HELD}"
    response = ask(make_api(manager=manager, settings=KEYED), request_)
    assert (response.status_code, response.json()["error"]["type"]) == (403, "permission_error")
    assert not manager.calls


def test_a_key_sees_only_what_it_opens() -> None:
    models = [FixedModel(name, info=model_info(name)) for name in "ab"]
    api = make_api(*models, manager=ScriptedInstances(instance("a", "running"), instance("c")), settings=KEYED)

    def read(path: str, key: str) -> Any:
        return ask(api, get(path, authorization=f"Bearer {key}")).json()

    assert [card["id"] for card in read("/v1/models", HELD)["data"]] == ["a"]
    assert [card["id"] for card in read("/v1/models", OPEN)["data"]] == ["a", "b", "c"]
    assert set(read("/health/deep", HELD)["models"]) == {"a"}
    assert set(read("/version", HELD)["engines"]) == {"a"}


def test_the_models_are_put_together_only_when_something_has_changed() -> None:
    manager = ScriptedInstances(instance("a"))
    catalog = managed_models(manager, GatewaySettings(), FixedModel("b"))
    models = catalog.models()
    assert catalog.models() is models
    manager.move("a", status="failed", message="no memory")
    manager.show()
    shown = catalog.models()["a"]
    assert isinstance(shown, InstanceModel)
    assert (shown.status, shown.message) == ("failed", "no memory")
