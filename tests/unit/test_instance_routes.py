"""The management routes: what they ask the manager for, and what of its answers they write."""

import json
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from fastapi import FastAPI

from config.models import GatewaySettings
from deployments.errors import EngineUnavailableError, MaxInstancesError, StartFailedError
from deployments.ingress.api import MANAGED_PATHS
from deployments.instance_types import ParsedCommand
from tests.bad_instance_requests import BAD_CALLS, HERE, INSTANCES, KEYS, PARSE, BadCall
from tests.fakes import (
    EVENTS,
    FixedModel,
    ScriptedEngine,
    ScriptedInstances,
    ScriptedResponse,
    ask,
    instance,
    make_api,
    model_info,
)

MANAGEMENT, INFERENCE = "sk-management-0123456789", "sk-inference-0123456789"
SETTINGS = GatewaySettings.model_validate(
    {"auth": {"inference_keys": INFERENCE, "management_keys": MANAGEMENT, "allow_open": True}}
)
COMPLETIONS = f"{HERE}/proxy/v1/completions"


def manage(
    manager: ScriptedInstances, method: str, path: str, body: object = None, *models: FixedModel
) -> httpx.Response:
    return ask(make_api(*models, manager=manager, settings=SETTINGS), to_request(method, path, body))


def to_request(method: str, path: str, body: object = None, key: str = MANAGEMENT) -> httpx.Request:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Request(method, f"http://localhost{path}", content=content, headers=headers)


def here(**fields: Any) -> ScriptedInstances:
    return ScriptedInstances(instance("here", **fields))


@pytest.fixture(scope="module")
def manager() -> ScriptedInstances:
    return here()


@pytest.fixture(scope="module")
def api(manager: ScriptedInstances) -> FastAPI:
    return make_api(manager=manager, settings=SETTINGS)


@pytest.mark.parametrize("case", BAD_CALLS, ids=lambda case: case.name)
def test_a_bad_call_is_refused_and_says_why(case: BadCall, api: FastAPI, manager: ScriptedInstances) -> None:
    response = ask(api, to_request(case.method, case.path, case.body))
    assert (response.status_code, response.json()["error"]) == (case.status, case.code), response.text
    assert set(response.json()) == {"error", "details"}
    assert 0 < len(response.json()["details"]) < 1000
    assert manager.instances == here().instances
    assert not manager.stored
    if case.status == 405:
        assert response.headers["allow"]


def test_there_are_many_bad_calls_and_each_has_a_name() -> None:
    assert len({case.name for case in BAD_CALLS}) == len(BAD_CALLS) >= 80


@pytest.mark.parametrize("case", BAD_CALLS[::7], ids=lambda case: case.name)
def test_without_a_management_key_nobody_learns_what_is_wrong(case: BadCall, api: FastAPI) -> None:
    for key, status in ((INFERENCE, 403), ("sk-nobody-0123456789", 401)):
        response = ask(api, to_request(case.method, case.path, case.body, key))
        assert response.status_code in (status, 404)
        if response.status_code == 404:
            assert "no route" in response.json()["details"]


@pytest.mark.parametrize("name", ["a", "Qwen2.5-7B_x", "0", "-", "_", "a" * 50, "..a", "start", "logs", "proxy"])
def test_an_instance_is_made_started_stopped_and_deleted(name: str) -> None:
    manager, path = ScriptedInstances(), f"{INSTANCES}/{name}"
    options = {"backend_type": "fake", "backend_options": {"model": "x", "n": [1, {"é": None}]}}
    made = manage(manager, "POST", path, options)
    assert made.status_code == 201
    assert made.json() == {
        "id": f"id-{name}",
        "name": name,
        "status": "stopped",
        "ready": False,
        "created": 1_600_000_000,
        "options": options,
        "command": f"vllm serve {name}",
    }
    assert manage(manager, "GET", path).json() == made.json()
    assert manage(manager, "GET", INSTANCES).json() == [made.json()]
    for verb, status in (("start", "running"), ("start", "running"), ("stop", "stopped"), ("stop", "stopped")):
        answer = manage(manager, "POST", f"{path}/{verb}")
        assert (answer.status_code, answer.json()["status"]) == (200, status)
    assert manage(manager, "POST", f"{path}/restart").json()["status"] == "restarting"
    refused = manage(manager, "DELETE", path)
    assert (refused.status_code, refused.json()["error"]) == (409, "instance_running")
    changed = manage(manager, "PUT", path, {"backend_type": "fake"})
    assert (changed.status_code, changed.json()["options"]) == (200, {"backend_type": "fake"})
    manage(manager, "POST", f"{path}/stop")
    deleted = manage(manager, "DELETE", path)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert manage(manager, "GET", INSTANCES).json() == []


def test_a_name_may_be_written_with_percents() -> None:
    assert manage(here(), "GET", f"{INSTANCES}/%68%65%72%65").json()["name"] == "here"
    assert manage(here(), "GET", f"{INSTANCES}/%68%65%72%65/logs").status_code == 200


def test_why_it_failed_and_that_the_yaml_declares_it_is_told_only_then() -> None:
    assert manage(here(message="no memory"), "GET", HERE).json()["message"] == "no memory"
    assert manage(here(is_declared=True), "GET", HERE).json()["declared"] is True
    assert not {"message", "declared"} & manage(here(), "GET", HERE).json().keys()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (MaxInstancesError("3 instances run"), 409, "max_instances_reached"),
        (StartFailedError("no memory"), 500, "start_failed"),
        (EngineUnavailableError("no manager", None, 5), 503, "engine_unavailable"),
    ],
)
def test_a_refusal_of_the_manager_is_the_answer(error: Any, status: int, code: str) -> None:
    manager = here()
    manager.refusal = error
    answer = manage(manager, "POST", f"{HERE}/start")
    assert (answer.status_code, answer.json()) == (status, {"error": code, "details": error.message})


@pytest.mark.parametrize(
    ("query", "lines"), [("", "None"), ("?lines=1", "1"), ("?lines=4194304", "4194304"), ("?x=1", "None")]
)
def test_logs_are_text(query: str, lines: str) -> None:
    answer = manage(here(), "GET", f"{HERE}/logs{query}")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == f"the last {lines} of `here`: é\n"


def test_a_body_is_bounded() -> None:
    settings = SETTINGS.model_copy(update={"limits": SETTINGS.limits.model_copy(update={"max_body_bytes": 1024})})
    request = to_request("POST", f"{INSTANCES}/new", b" " * 1025)
    assert ask(make_api(manager=here(), settings=settings), request).status_code == 413


def test_a_command_is_read_as_options() -> None:
    manager = here()
    manager.parsed = ParsedCommand({"model": "x", "max_model_len": 10})
    assert manage(manager, "POST", PARSE, {"command": "vllm serve x\n"}).json() == {
        "backend_type": "vllm",
        "backend_options": {"model": "x", "max_model_len": 10},
    }
    assert manager.asked("parse") == ["vllm serve x\n"]
    manager.parsed = ParsedCommand({}, {"A": "1"}, ("--port",), ("--what", "5"))
    rest = manage(manager, "POST", PARSE, {"command": "é" * 2**15}).json()
    assert (rest["environment"], rest["ignored"], rest["extra_args"]) == ({"A": "1"}, ["--port"], ["--what", "5"])


def test_versions_and_nodes() -> None:
    assert manage(here(), "GET", "/api/v1/backends/vllm/version").json() == {"version": "0.0"}
    assert manage(here(), "GET", "/api/v1/version").json()["version"]
    assert manage(here(), "GET", "/api/v1/nodes").json() == [{"id": "n", "alive": True}]


@pytest.mark.parametrize("path", [*MANAGED_PATHS, HERE, f"{HERE}/start", f"{KEYS}/x", COMPLETIONS])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_a_server_without_a_manager_says_so(path: str, method: str) -> None:
    answer = ask(make_api(settings=SETTINGS), to_request(method, path))
    assert (answer.status_code, answer.json()["error"]) == (503, "engine_unavailable")
    assert "manager of instances" in answer.json()["details"]
    assert ask(make_api(settings=SETTINGS), to_request("GET", "/api/v1/version")).is_success


def test_the_management_routes_are_documented() -> None:
    document = manage(here(), "GET", "/openapi.json").json()
    body = document["paths"][f"{INSTANCES}/{{name}}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "idle_timeout" in body["properties"]
    assert {KEYS, PARSE, f"{INSTANCES}/{{name}}/logs"} <= document["paths"].keys()


# Through the proxy: to one instance, that runs.


def proxied(
    method: str, path: str, body: object = None, info: Any = None, answer: ScriptedResponse | Exception | None = None
) -> tuple[httpx.Response, ScriptedEngine, ScriptedInstances]:
    engine, manager = ScriptedEngine(answer or ScriptedResponse([b"{}"])), here(status="running")
    response = manage(manager, method, f"{HERE}/proxy{path}", body, FixedModel("here", engine, info=info))
    assert not +manager.in_use
    return response, engine, manager


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/tokenize", "/v1/grammars"])
def test_what_is_posted_reaches_the_engine_as_it_is(path: str) -> None:
    body = '{"model":  "what-it-likes", "x": "é"}'.encode()
    response, engine, _ = proxied("POST", f"{path}?a=1&b=%20", body, answer=ScriptedResponse([b"a", b"b"], EVENTS, 202))
    assert (response.status_code, response.content) == (202, b"ab")
    (seen,) = engine.requests
    assert (seen.method, seen.path, seen.query, seen.body) == ("POST", path, b"a=1&b=%20", body)
    assert b"authorization" not in dict(seen.headers)


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/version", "/v1/grammars/x%20y"])
def test_what_is_read_reaches_the_engine(path: str) -> None:
    response, engine, _ = proxied("GET", f"{path}?a=1")
    assert response.status_code == 200
    (seen,) = engine.requests
    assert (seen.method, seen.path, seen.query, seen.body) == ("GET", unquote(path), b"a=1", b"")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        ({"n": 10**6}, 400),
        ({"priority": 1}, 400),
        ({"max_tokens": 5000}, 400),
        ({"guided_json": 1, "guided_regex": "a"}, 400),
    ],
)
def test_the_same_is_checked_as_on_the_usual_route(body: object, status: int) -> None:
    response, engine, _ = proxied("POST", "/v1/completions", body, model_info("here", "/v1/completions"))
    assert response.status_code == status
    assert set(response.json()) == {"error", "details"}
    assert not engine.requests


def test_a_route_that_the_instance_lacks_is_404() -> None:
    response, engine, _ = proxied("POST", "/v1/embeddings", {}, model_info("here", "/v1/completions"))
    assert (response.status_code, engine.requests) == (404, [])
    response, engine, _ = proxied("GET", "/v1/grammars/x", None, model_info("here", "/v1/completions"))
    assert (response.status_code, engine.requests) == (404, [])


def test_older_names_of_constraints_are_translated() -> None:
    _, engine, _ = proxied("POST", "/v1/completions", {"guided_json": {}})
    assert json.loads(engine.requests[0].body) == {"structured_outputs": {"json": {}}}


@pytest.mark.parametrize("status", ["stopped", "failed", "restarting", "running", "shutting_down"])
def test_the_proxy_starts_nothing(status: Any) -> None:
    manager = here(status=status)
    answer = manage(manager, "POST", COMPLETIONS, {"prompt": "x"})
    expected = "instance_shutting_down" if status == "shutting_down" else "instance_not_running"
    assert (answer.status_code, answer.json()["error"]) == (503, expected)
    assert int(answer.headers["retry-after"]) > 0
    assert not manager.calls


def test_the_proxy_reaches_models_of_the_yaml_too() -> None:
    engine, manager = ScriptedEngine(), ScriptedInstances()
    path = f"{INSTANCES}/yaml/proxy/v1/completions"
    assert manage(manager, "POST", path, {}, FixedModel("yaml", engine)).status_code == 200
    assert len(engine.requests) == 1
    answer = manage(manager, "POST", path, {}, FixedModel("yaml", engine, status="failed"))
    assert (answer.status_code, answer.json()["error"]) == (503, "instance_not_running")


def test_the_proxy_knows_what_was_defined_just_now() -> None:
    manager = ScriptedInstances()
    api = make_api(manager=manager, settings=SETTINGS)
    manager.instances["here"] = instance("here")
    assert ask(api, to_request("GET", f"{HERE}/proxy/health")).json()["error"] == "instance_not_running"


def test_a_request_that_an_engine_loses_through_the_proxy_is_not_sent_again() -> None:
    manager, engine = here(status="running"), ScriptedEngine(EngineUnavailableError("lost", None, 1))
    api = make_api(FixedModel("here", engine), manager=manager, settings=SETTINGS)
    manager.move("here", status="stopped")
    assert ask(api, to_request("POST", COMPLETIONS, {"prompt": "x"})).status_code == 503
    assert not manager.asked("ensure")
    assert len(engine.requests) == 1
