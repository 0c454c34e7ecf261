import json
import logging
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version

import httpx
import pytest
from starlette.types import Message

from config.limits import RequestLimits
from config.models import GatewaySettings
from deployments.errors import EngineUnavailableError, OverloadedError, ServingError
from deployments.openai_paths import FORWARDED
from tests.aio import run
from tests.fakes import (
    EVENTS,
    FixedModel,
    ScriptedEngine,
    ScriptedResponse,
    ask,
    get,
    http_client,
    make_api,
    model_info,
    post,
)

CHAT = "/v1/chat/completions"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the gateway logs, also when Serve has taken its logger out of the tree."""
    logger = logging.getLogger("ray.serve")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def assert_openai_error(response: httpx.Response, status: int, words: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert len(response.headers.get_list("x-request-id")) == 1
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert words in error["message"]


@pytest.mark.parametrize("path", FORWARDED)
def test_requests_are_forwarded_as_they_are(path: str) -> None:
    engine = ScriptedEngine(ScriptedResponse([b'{"a": ', b"1}"], ((b"content-type", b"x/y"), (b"x-z", b"1")), 202))
    request = post(f"{path}?a=1&b=%20", '{"model":  "a", "x": "é"}'.encode())
    request.headers["authorization"] = "Bearer secret"
    request.headers["x-request-id"] = "mine"
    response = ask(make_api(FixedModel("a", engine)), request)
    assert (response.status_code, response.content) == (202, b'{"a": 1}')
    assert (response.headers["content-type"], response.headers["x-z"]) == ("x/y", "1")
    (seen,) = engine.requests
    assert (seen.method, seen.path, seen.query) == ("POST", path, b"a=1&b=%20")
    assert seen.body == '{"model":  "a", "x": "é"}'.encode()
    assert dict(seen.headers)[b"x-request-id"] == b"mine"
    assert b"authorization" not in dict(seen.headers)


@pytest.mark.parametrize(
    ("requested", "default", "chosen"),
    [("a", None, "a"), ("b/anything", None, "b"), (None, "b", "b"), ("", "b", "b"), ("a", "b", "a")],
)
def test_the_model_of_a_request(requested: str | None, default: str | None, chosen: str) -> None:
    engines = {"a": ScriptedEngine(), "b": ScriptedEngine()}
    api = make_api(
        *(FixedModel(name, engine) for name, engine in engines.items()), settings=GatewaySettings(default_model=default)
    )
    assert ask(api, post(CHAT, {"model": requested})).status_code == 200
    assert [name for name, engine in engines.items() if engine.requests] == [chosen]


def test_a_request_without_a_model_goes_to_the_only_one() -> None:
    assert ask(make_api(FixedModel("a")), post(CHAT, {})).status_code == 200


def test_no_model_can_be_chosen() -> None:
    several = make_api(FixedModel("a"), FixedModel("b"))
    assert_openai_error(ask(several, post(CHAT, {})), 400, "required")
    assert_openai_error(ask(several, post(CHAT, {"model": "c"})), 404, "a, b")
    assert_openai_error(ask(make_api(), post(CHAT, {})), 400, "required")
    assert_openai_error(ask(make_api(), post(CHAT, {"model": "c"})), 404, "none yet")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model": 5}'])
def test_a_bad_body_is_400_and_reaches_no_engine(body: bytes) -> None:
    engine = ScriptedEngine()
    assert_openai_error(ask(make_api(FixedModel("a", engine)), post(CHAT, body)), 400, "must be a")
    assert not engine.requests


def test_a_large_body_is_413_whether_its_size_is_declared_or_not() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 512

    engine = ScriptedEngine()
    api = make_api(FixedModel("a", engine), settings=GatewaySettings(limits=RequestLimits(max_body_bytes=1024)))
    assert_openai_error(ask(api, post(CHAT, b" " * 1025)), 413, "1024 bytes")
    assert_openai_error(ask(api, httpx.Request("POST", f"http://localhost{CHAT}", content=chunks())), 413, "1024 bytes")
    assert not engine.requests


@pytest.mark.parametrize("path", ["/v1/nothing", "/sleep", "/collective_rpc", "/invocations", "/metrics"])
def test_unknown_routes_are_404(path: str) -> None:
    assert_openai_error(ask(make_api(FixedModel("a")), post(path, {})), 404, f"no route `{path}`")


def test_unknown_routes_of_the_other_families_are_404_in_their_shape() -> None:
    assert ask(make_api(), get("/api/v1/nothing")).json()["error"] == "not_found_error"
    assert "no route" in ask(make_api(), get("/api/nothing")).json()["detail"]


@pytest.mark.parametrize(
    ("request_", "allowed"),
    [(get(CHAT), "POST"), (post("/v1/models", {}), "GET"), (post("/v1/models/a", {}), "GET")],
)
def test_a_wrong_method_is_405_and_names_the_right_one(request_: httpx.Request, allowed: str) -> None:
    response = ask(make_api(FixedModel("a")), request_)
    assert_openai_error(response, 405, "not allowed")
    assert response.headers["allow"] == allowed


def test_a_wrong_method_names_all_the_right_ones() -> None:
    response = ask(make_api(FixedModel("a")), httpx.Request("PUT", "http://localhost/api/highlights"))
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


@pytest.mark.parametrize(("host", "query"), [("[::1", b""), ("x/api/v1", b""), ("gateway", b"a=\xff")])
def test_an_error_does_not_depend_on_the_host_or_the_query(host: str, query: bytes) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", host.encode())]
    scope = {"type": "http", "method": "DELETE", "path": CHAT, "query_string": query, "headers": headers}
    api = make_api(FixedModel("a"), settings=GatewaySettings.model_validate({"auth": {"allow_open": True}}))
    run(api(scope, receive, send))
    assert sent[0]["status"] == 405
    assert json.loads(sent[1]["body"])["error"]["message"] == f"`DELETE` is not allowed on `{CHAT}`."


def test_a_route_that_the_model_lacks_is_404() -> None:
    engine = ScriptedEngine()
    api = make_api(FixedModel("a", engine, info=model_info("a", CHAT)))
    assert ask(api, post(CHAT, {})).status_code == 200
    assert_openai_error(ask(api, post("/v1/embeddings", {})), 404, "/v1/embeddings")
    assert len(engine.requests) == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [("starting", "is loading"), ("failed", "failed to start: no memory"), ("stopping", "is shutting")],
)
def test_a_model_that_is_not_ready_is_503_with_retry_after(status: str, words: str) -> None:
    model = FixedModel("a", status=status, message="no memory")
    response = ask(make_api(model, settings=GatewaySettings(retry_after_s=9)), post(CHAT, {"model": "a"}))
    assert_openai_error(response, 503, words)
    assert response.headers["retry-after"] == "9"


@pytest.mark.parametrize("error", [OverloadedError("full", None, 2), EngineUnavailableError("lost", None, 2)])
def test_an_engine_that_refuses_is_answered_with_its_error(error: ServingError) -> None:
    response = ask(make_api(FixedModel("a", ScriptedEngine(error))), post(CHAT, {}))
    assert_openai_error(response, error.status, error.message)
    assert response.headers["retry-after"] == "2"


def test_an_error_that_nobody_foresaw_is_a_fixed_text_for_the_client_and_a_traceback_for_us(
    log: pytest.LogCaptureFixture,
) -> None:
    request = post(CHAT, {})
    request.headers["x-request-id"] = "mine"
    response = ask(make_api(FixedModel("a", ScriptedEngine(ValueError("secret")))), request)
    assert_openai_error(response, 500, "The server had an error")
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert response.headers["x-request-id"] == "mine"
    assert "mine" in log.text
    assert "ValueError: secret" in log.text


def test_a_plain_body_that_breaks_is_not_ended_cleanly() -> None:
    upstream = ScriptedResponse([b'{"a":', EngineUnavailableError("lost")])
    with pytest.raises(RuntimeError, match="response already started"):  # the server breaks the connection
        ask(make_api(FixedModel("a", ScriptedEngine(upstream))), post(CHAT, {}))
    assert upstream.is_cancelled


def test_a_stream_that_breaks_ends_with_an_error_frame() -> None:
    upstream = ScriptedResponse([b"data: {}\n\n", EngineUnavailableError("lost")], EVENTS)
    response = ask(make_api(FixedModel("a", ScriptedEngine(upstream))), post(CHAT, {}))
    assert response.status_code == 200
    first, last, end = response.text.split("\n\n")
    assert (first, end) == ("data: {}", "")
    assert '"lost"' in last


@pytest.mark.parametrize("path", ["/v1/models", "/nowhere", "/health"])
def test_every_response_has_one_request_id(path: str) -> None:
    api = make_api()
    assert ask(api, get(path, **{"x-request-id": "mine-1"})).headers.get_list("x-request-id") == ["mine-1"]
    ids = {tuple(ask(api, get(path)).headers.get_list("x-request-id")) for _ in range(2)}
    assert len(ids) == 2
    assert {len(given) for given in ids} == {1}


def test_an_id_that_the_server_in_front_echoes_is_left_to_it() -> None:
    api = make_api(server_echoes=True)
    assert "x-request-id" not in ask(api, get("/v1/models", **{"x-request-id": "mine-1"})).headers


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [(["running"], 200), (["idle", "failed"], 200), (["starting", "failed"], 503), (["stopping"], 503), ([], 503)],
)
def test_health(statuses: list[str], expected: int) -> None:
    engine = ScriptedEngine()
    models = [FixedModel(f"m{index}", engine, status) for index, status in enumerate(statuses)]
    response = ask(make_api(*models), get("/health"))
    assert response.status_code == expected
    if expected == 200:
        assert response.content == b""
    else:
        assert_openai_error(response, 503, "No engine is ready")
        assert int(response.headers["retry-after"]) > 0
    assert not engine.requests


def test_model_list_has_every_model_ready_or_not() -> None:
    api = make_api(FixedModel("a", info=model_info("a")), FixedModel("b", status="starting"))
    ready, loading = ask(api, get("/v1/models")).json()["data"]
    assert ready == {
        "id": "a",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "vllm-graph",
        "max_model_len": 4096,
        "status": "running",
    }
    assert (loading["id"], loading["status"], loading["max_model_len"]) == ("b", "starting", None)
    assert ask(api, get("/v1/models/a")).json() == ready
    assert_openai_error(ask(api, get("/v1/models/c/d")), 404, "`c/d` does not exist")


def test_version_names_this_server_and_the_engines_that_answered() -> None:
    api = make_api(FixedModel("a", info=model_info("a")), FixedModel("b", status="starting"))
    assert ask(api, get("/version")).json() == {"version": version("vllm-graph"), "engines": {"a": "fake 1"}}


def test_the_routes_are_documented() -> None:
    async def read() -> set[str]:
        async with http_client(make_api()) as client:
            return set((await client.get("/openapi.json")).json()["paths"])

    assert {*FORWARDED, "/v1/models", "/health", "/version"} <= run(read())
