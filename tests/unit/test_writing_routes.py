"""The writing tools over HTTP: how an answer of the Tokenizer, or none, reaches the client."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from config.limits import Deadlines, RequestLimits
from config.models import GatewaySettings
from deployments.analysis_types import AnalysisRequest, HighlightsQuestion
from deployments.errors import (
    ContextLengthError,
    EngineUnavailableError,
    InvalidRequestError,
    OverloadedError,
    ServingError,
)
from deployments.ingress.relay import COMMENT
from deployments.ingress.routes.writing import PATHS
from deployments.ingress.services import Response
from tests.aio import run, settle
from tests.fakes import (
    EVENTS,
    FixedModel,
    ScriptedResponse,
    ScriptedTokenizer,
    ask,
    get,
    http_client,
    make_api,
    model_info,
    post,
)

KEY, MANAGEMENT_KEY = "sk-inference-0123456789", "sk-management-0123456789"
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
QUERIES: dict[str, dict[str, str]] = {
    "/api/highlights": {"doc": "a"},
    "/api/next_token": {"original_doc": "a", "prompt": "b", "doc_in_progress": "c"},
    "/api/gen_revisions": {"prompt": "b", "doc": "a"},
}
BODIES: dict[str, dict[str, Any]] = {
    "/api/highlights": {"doc": "a"},
    "/api/continue_messages": CHAT,
    "/api/logprobs": CHAT,
}
EVERY = [("GET", path) for path in QUERIES] + [("POST", path) for path in BODIES]
each_route = pytest.mark.parametrize(("method", "path"), EVERY)


def to_request(method: str, path: str, **headers: str) -> httpx.Request:
    request = get(f"{path}?{urlencode(QUERIES[path])}") if method == "GET" else post(path, BODIES[path])
    request.headers.update(headers)
    return request


def respond(
    answer: ScriptedResponse | Exception, request: httpx.Request, settings: GatewaySettings | None = None
) -> httpx.Response:
    return ask(make_api(FixedModel("m"), settings=settings, tokenizer=ScriptedTokenizer(answer)), request)


def assert_detail(response: httpx.Response, status: int, words: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert len(response.headers.get_list("x-request-id")) == 1
    assert list(response.json()) == ["detail"]
    assert words in response.json()["detail"]


@each_route
def test_the_tokenizers_answer_is_the_answer(method: str, path: str) -> None:
    answer = ScriptedResponse([b'{"a": ', '"é"}'.encode()])
    response = respond(answer, to_request(method, path))
    assert (response.status_code, response.content) == (200, '{"a": "é"}'.encode())
    assert response.headers["content-type"] == "application/json"
    assert answer.is_cancelled


@each_route
@pytest.mark.parametrize(
    "error",
    [
        ContextLengthError("The text has 9 tokens, the window is 8."),
        InvalidRequestError("no tokenizer"),
        OverloadedError("too many", None, 2),
        EngineUnavailableError("lost", None, 2),
    ],
)
def test_an_error_before_the_answer_is_a_detail(method: str, path: str, error: ServingError) -> None:
    response = respond(error, to_request(method, path, accept="text/event-stream"))
    assert_detail(response, error.status, error.message)
    assert response.headers.get("retry-after") == (error.retry_after_s and str(error.retry_after_s))


@each_route
def test_an_error_that_nobody_foresaw_says_nothing(method: str, path: str) -> None:
    response = respond(ValueError("secret"), to_request(method, path))
    assert_detail(response, 500, "The server had an error")
    assert "secret" not in response.text


def test_an_answer_that_breaks_is_not_ended_cleanly() -> None:
    answer = ScriptedResponse([b'{"highlights": [', EngineUnavailableError("lost")])
    with pytest.raises(RuntimeError, match="response already started"):  # the server breaks the connection
        respond(answer, to_request("GET", "/api/highlights"))
    assert answer.is_cancelled


@pytest.mark.parametrize(
    ("method", "accept", "is_stream"),
    [
        ("POST", "text/event-stream", True),
        ("POST", "application/json, Text/Event-Stream;q=0.9", True),
        ("POST", "application/json", False),
        ("POST", "*/*", False),
        ("POST", "", False),
        ("GET", "text/event-stream", False),
    ],
)
def test_highlights_are_streamed_to_who_posts_and_accepts_events(method: str, accept: str, is_stream: bool) -> None:
    tokenizer = ScriptedTokenizer()
    ask(make_api(FixedModel("m"), tokenizer=tokenizer), to_request(method, "/api/highlights", accept=accept))
    (request,) = tokenizer.requests
    assert isinstance(request.question, HighlightsQuestion)
    assert request.question.is_stream is is_stream


def test_events_are_sent_on_as_they_are() -> None:
    chunks = [b'data: {"highlights": []}\n\n', b"data: [DONE]\n\n"]
    response = respond(ScriptedResponse(chunks, EVENTS), to_request("POST", "/api/highlights"))
    assert response.content == b"".join(chunks)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"


def test_a_stream_that_breaks_ends_with_a_detail() -> None:
    answer = ScriptedResponse([b"data: {}\n\n", EngineUnavailableError('"lost"\n')], EVENTS)
    response = respond(answer, to_request("POST", "/api/highlights", accept="text/event-stream"))
    assert response.status_code == 200
    first, last, end = response.text.split("\n\n")
    assert (first, end) == ("data: {}", "")
    assert last == 'data: {"detail": "\\"lost\\"\\n"}'
    assert answer.is_cancelled


class LateTokenizer(ScriptedTokenizer):
    """Answers when the client has been sent all that is sent meanwhile."""

    async def open(self, request: AnalysisRequest) -> Response:
        await settle()
        return await super().open(request)


AT_ONCE = GatewaySettings(deadlines=Deadlines(heartbeat_s=1e-9))


@pytest.mark.parametrize(
    ("answer", "event"),
    [
        (ContextLengthError("too long"), b'data: {"detail": "too long"}\n\n'),
        (ScriptedResponse([b"data: [DONE]\n\n"], EVENTS), b"data: [DONE]\n\n"),
    ],
)
def test_a_stream_that_waits_is_sent_comments_and_then_its_answer(
    answer: ScriptedResponse | Exception, event: bytes
) -> None:
    api = make_api(FixedModel("m"), settings=AT_ONCE, tokenizer=LateTokenizer(answer))
    body = ask(api, to_request("POST", "/api/highlights", accept="text/event-stream")).content
    assert body.startswith(COMMENT)
    assert body.replace(COMMENT, b"") == event


@pytest.mark.parametrize(("method", "path"), [route for route in EVERY if route != ("POST", "/api/highlights")])
def test_what_comes_as_a_whole_is_json_whatever_is_accepted_and_however_late(method: str, path: str) -> None:
    api = make_api(FixedModel("m"), settings=AT_ONCE, tokenizer=LateTokenizer())
    response = ask(api, to_request(method, path, accept="text/event-stream"))
    assert (response.headers["content-type"], response.content) == ("application/json", b"{}")


@each_route
def test_an_unknown_model_is_404(method: str, path: str) -> None:
    tokenizer = ScriptedTokenizer()
    api = make_api(FixedModel("a"), FixedModel("b"), tokenizer=tokenizer)
    assert_detail(ask(api, to_request(method, path)), 400, "Model name is required")
    if method == "GET":
        response = ask(api, get(f"{path}?{urlencode({**QUERIES[path], 'model': 'c'})}"))
    else:
        response = ask(api, post(path, {**BODIES[path], "model": "c"}))
    assert_detail(response, 404, "`c` does not exist. Models: a, b")
    assert not tokenizer.requests


@each_route
@pytest.mark.parametrize(("status", "words"), [("starting", "is loading"), ("failed", "failed to start: no memory")])
def test_a_model_that_is_not_ready_is_503_with_retry_after(method: str, path: str, status: str, words: str) -> None:
    tokenizer = ScriptedTokenizer()
    model = FixedModel("m", status=status, message="no memory")
    api = make_api(model, settings=GatewaySettings(retry_after_s=9), tokenizer=tokenizer)
    response = ask(api, to_request(method, path))
    assert_detail(response, 503, words)
    assert response.headers["retry-after"] == "9"
    assert not tokenizer.requests


def test_a_model_scaled_to_zero_and_one_whose_routes_are_few_are_asked() -> None:
    """The engine has no such routes: the Tokenizer answers."""
    for model in (FixedModel("m", status="idle"), FixedModel("m", info=model_info("m", "/v1/completions"))):
        assert ask(make_api(model), to_request("GET", "/api/highlights")).status_code == 200


@pytest.mark.parametrize("path", BODIES)
def test_a_large_body_is_413_whether_its_size_is_declared_or_not(path: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 512

    settings = GatewaySettings(limits=RequestLimits(max_body_bytes=1024))
    for request in (post(path, b" " * 1025), httpx.Request("POST", f"http://localhost{path}", content=chunks())):
        assert_detail(respond(ScriptedResponse([]), request, settings), 413, "1024 bytes")


@each_route
def test_with_keys_configured_one_is_needed(method: str, path: str) -> None:
    settings = GatewaySettings.model_validate({"auth": {"inference_keys": KEY, "management_keys": MANAGEMENT_KEY}})

    def status(**headers: str) -> int:
        return respond(ScriptedResponse([b"{}"]), to_request(method, path, **headers), settings).status_code

    assert (status(), status(**{"x-api-key": "wrong-0123456789"})) == (401, 401)
    assert status(authorization=f"Bearer {KEY}") == 200
    assert status(**{"x-api-key": MANAGEMENT_KEY}) == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/next_token"), ("POST", "/api/gen_revisions"), ("GET", "/api/logprobs"), ("PUT", "/api/highlights")],
)
def test_other_methods_are_405(method: str, path: str) -> None:
    response = ask(make_api(FixedModel("m")), httpx.Request(method, f"http://localhost{path}"))
    assert_detail(response, 405, f"`{method}` is not allowed on `{path}`")


@pytest.mark.parametrize("path", ["/api/nothing", "/api/highlights/", "/api/HIGHLIGHTS", "/api"])
def test_other_paths_are_404(path: str) -> None:
    assert ask(make_api(FixedModel("m")), get(path)).status_code == 404


def described() -> dict[str, Any]:
    async def read() -> Any:
        async with http_client(make_api()) as client:
            return (await client.get("/openapi.json")).json()

    document: dict[str, Any] = run(read())
    return document


def test_the_routes_are_described() -> None:
    paths = described()["paths"]
    assert {(method, path) for method, path in EVERY} == {
        (method.upper(), path) for path in paths.keys() & PATHS for method in paths[path]
    }


@pytest.mark.parametrize(
    ("path", "required", "optional"),
    [
        (
            "/api/highlights",
            {"doc"},
            {"prompt", "updated_doc", "k", "window", "offsets", "detail", "model"},
        ),
        ("/api/next_token", {"original_doc", "prompt", "doc_in_progress"}, {"k", "model"}),
        ("/api/gen_revisions", {"prompt", "doc"}, {"n", "max_length", "model"}),
    ],
)
def test_queries_are_described(path: str, required: set[str], optional: set[str]) -> None:
    parameters = described()["paths"][path]["get"]["parameters"]
    assert {parameter["in"] for parameter in parameters} == {"query"}
    assert {parameter["name"] for parameter in parameters if parameter["required"]} == required
    assert {parameter["name"] for parameter in parameters} == required | optional


@pytest.mark.parametrize("path", BODIES)
def test_bodies_are_described_whole(path: str) -> None:
    """Nothing in them refers to what is not in the document."""
    body = described()["paths"][path]["post"]["requestBody"]
    schema = body["content"]["application/json"]["schema"]
    assert body["required"] is True
    assert schema["required"] == list(BODIES[path])
    assert schema["additionalProperties"] is False
    assert "$ref" not in json.dumps(schema)


def test_a_described_conversation_says_what_a_message_is() -> None:
    operation = described()["paths"]["/api/continue_messages"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    message = schema["properties"]["messages"]["items"]
    assert message["required"] == ["role", "content"]
    assert "assistant" in message["properties"]["role"]["enum"]
    assert "continued" in schema["properties"]["messages"]["description"]
