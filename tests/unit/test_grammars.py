"""`/v1/grammars`, in front of an engine's own application."""

import json
from typing import Any

import pytest

from deployments.engine.asgi import stream_asgi
from deployments.engine.grammars import PATH, Grammars, read_spec, with_route
from deployments.errors import EngineUnavailableError, InvalidRequestError, ServingError
from deployments.guided_types import GrammarSpec
from deployments.types import HttpHead, HttpRequest
from tests.aio import run
from tests.guided import InMemoryCompiler, make_guide

SCHEMA = {"type": "object"}


async def engine(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the engine's"})


def ask(method: str, path: str, body: Any = None, outcome: ServingError | str = "compiled") -> tuple[HttpHead, bytes]:
    async def main() -> tuple[HttpHead, bytes]:
        guide, _ = make_guide(InMemoryCompiler(outcome))
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = HttpRequest(method, path, b"", (), raw)
        items = stream_asgi(Grammars(engine, guide), request, max_buffered_bytes=1000, abort_timeout_s=5)
        head, *chunks = [item async for item in items]
        assert isinstance(head, HttpHead)
        return head, b"".join(chunk for chunk in chunks if isinstance(chunk, bytes))

    return run(main())


def test_other_routes_are_the_engines() -> None:
    assert ask("POST", "/v1/completions")[1] == b"the engine's"
    assert ask("POST", "/v1/grammarsandmore")[1] == b"the engine's"


def test_a_constraint_is_compiled_and_found_again() -> None:
    head, body = ask("POST", PATH, {"kind": "json", "spec": SCHEMA})
    made = json.loads(body)
    assert head.status == 200
    assert (made["kind"], made["backend"], made["bytes"], made["compile_ms"], made["cached"]) == (
        "json",
        "xgrammar",
        8,
        500,
        False,
    )
    assert json.loads(ask("GET", f"{PATH}/{made['id']}")[1])["id"] == made["id"]


@pytest.mark.parametrize(
    ("outcome", "status"), [("refused", 400), (EngineUnavailableError("away", None, 3), 503), ("forgotten", 200)]
)
def test_what_the_pool_says_is_said(outcome: ServingError | str, status: int) -> None:
    head, body = ask("POST", PATH, {"kind": "regex", "spec": "a"}, outcome)
    assert head.status == status
    if status != 200:
        assert json.loads(body)["error"]["message"]


def test_what_is_forgotten_is_404() -> None:
    assert ask("GET", f"{PATH}/json-{'0' * 64}", outcome="forgotten")[0].status == 404
    assert ask("GET", f"{PATH}/json-0")[0].status == 404


@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("POST", f"{PATH}/json-0"), ("DELETE", PATH)])
def test_other_methods_are_405(method: str, path: str) -> None:
    assert ask(method, path, {})[0].status == 405


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"3"])
def test_what_is_no_object_is_400(body: bytes) -> None:
    head, answer = ask("POST", PATH, body)
    assert head.status == 400
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("kind", "spec", "text"),
    [
        ("json", SCHEMA, '{"type": "object"}'),
        ("json", '{"type": "object"}', '{"type": "object"}'),
        ("json", True, "true"),
        ("regex", "a+", "a+"),
        ("grammar", 'root ::= "a"', 'root ::= "a"'),
        ("choice", ["é", "b"], '["é", "b"]'),
        ("structural_tag", {"type": "structural_tag"}, '{"type": "structural_tag"}'),
        ("json_object", None, ""),
    ],
)
def test_every_kind_is_read(kind: str, spec: Any, text: str) -> None:
    assert read_spec(kind, spec) == GrammarSpec(kind, text)  # type: ignore[arg-type]
    assert read_spec(kind, spec, strict=False).strict is False


@pytest.mark.parametrize(
    ("kind", "spec", "strict"),
    [
        (None, "a", True),
        ("other", "a", True),
        (["json"], "a", True),
        ("regex", {}, True),
        ("choice", "a", True),
        ("choice", {}, True),
        ("json", 3, True),
        ("grammar", True, True),
        ("structural_tag", [], True),
        ("regex", "a", "yes"),
        ("regex", "a", None),
    ],
)
def test_what_is_no_constraint_is_refused(kind: Any, spec: Any, strict: Any) -> None:
    with pytest.raises(InvalidRequestError):
        read_spec(kind, spec, strict)


def test_the_route_is_in_the_engines_document() -> None:
    document = json.loads(with_route('{"paths": {"/v1/models": {}}}'))
    assert document["paths"].keys() == {"/v1/models", PATH}
