"""What the writing tools' routes ask the Tokenizer, and what they refuse to ask."""

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from config.limits import RequestLimits
from config.models import GatewaySettings
from config.writing import WritingSettings
from deployments.analysis_types import (
    AnalysisRequest,
    BranchesQuestion,
    HighlightsQuestion,
    LogprobsQuestion,
    Question,
    RevisionsQuestion,
)
from tests.fakes import FixedModel, ScriptedTokenizer, ask, get, make_api, post

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Once "}]
REQUIRED: dict[tuple[str, str], dict[str, Any]] = {
    ("GET", "/api/highlights"): {"doc": "a"},
    ("POST", "/api/highlights"): {"doc": "a"},
    ("POST", "/api/continue_messages"): {"messages": CHAT},
    ("GET", "/api/next_token"): {"original_doc": "a", "prompt": "b", "doc_in_progress": "c"},
    ("POST", "/api/logprobs"): {"messages": CHAT},
    ("GET", "/api/gen_revisions"): {"prompt": "b", "doc": "a"},
}
GETS = [path for method, path in REQUIRED if method == "GET"]
POSTS = [path for method, path in REQUIRED if method == "POST"]
HIGHLIGHTS = HighlightsQuestion("a", "Rewrite this document to be more concise.", "a", 5, False, False, False, False)
MESSAGES = (("user", "Hi"), ("assistant", "Once "))
SMALL = GatewaySettings(
    limits=RequestLimits(max_logprobs=7, max_choices=3, max_messages=2),
    writing=WritingSettings(max_document_chars=50, max_future_tokens=4, max_revision_tokens=6),
)


def to_request(method: str, path: str, fields: dict[str, Any]) -> httpx.Request:
    return get(f"{path}?{urlencode(fields)}") if method == "GET" else post(path, fields)


def answered(
    request: httpx.Request, settings: GatewaySettings | None = None
) -> tuple[httpx.Response, ScriptedTokenizer]:
    tokenizer = ScriptedTokenizer()
    api = make_api(FixedModel("m"), settings=settings or GatewaySettings(), tokenizer=tokenizer)
    return ask(api, request), tokenizer


def asked(method: str, path: str, settings: GatewaySettings | None = None, /, **fields: Any) -> AnalysisRequest:
    """Send a request with what its route requires and `fields`; return what the Tokenizer was asked."""
    response, tokenizer = answered(to_request(method, path, REQUIRED[method, path] | fields), settings)
    assert response.status_code == 200, response.text
    (request,) = tokenizer.requests
    return request


def question(method: str, path: str, **fields: Any) -> Question:
    return asked(method, path, **fields).question


def detail(request: httpx.Request, status: int, settings: GatewaySettings | None = None) -> str:
    """Send a request that is refused; return why."""
    response, tokenizer = answered(request, settings)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]
    assert not tokenizer.requests
    text = response.json()["detail"]
    assert isinstance(text, str)
    return text


def refused(method: str, path: str, status: int, settings: GatewaySettings | None = None, /, **fields: Any) -> str:
    return detail(to_request(method, path, REQUIRED[method, path] | fields), status, settings)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/highlights", HIGHLIGHTS),
        ("POST", "/api/highlights", HIGHLIGHTS),
        ("POST", "/api/continue_messages", BranchesQuestion(MESSAGES, 5, 1, only_texts=False)),
        (
            "GET",
            "/api/next_token",
            BranchesQuestion((("user", "b\n\na"), ("assistant", "c")), 5, 1, only_texts=True),
        ),
        ("POST", "/api/logprobs", LogprobsQuestion(MESSAGES, 5)),
        ("GET", "/api/gen_revisions", RevisionsQuestion("a", "b", 5, 1024)),
    ],
)
def test_what_is_required_is_enough(method: str, path: str, expected: Question) -> None:
    assert question(method, path) == expected


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_highlights_with_everything(method: str) -> None:
    fields = {"doc": " é ", "prompt": "", "updated_doc": " x\n", "k": 20, "window": True, "detail": True}
    expected = HighlightsQuestion(" é ", "", " x\n", 20, True, True, True, False)
    assert question(method, "/api/highlights", **fields, offsets="utf16") == expected


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("blank", ["", " ", "\n\t\u00a0"])
def test_a_blank_updated_doc_is_the_doc(method: str, blank: str) -> None:
    assert question(method, "/api/highlights", doc=" a ", updated_doc=blank) == replace(
        HIGHLIGHTS, doc=" a ", updated_doc=" a "
    )


def test_a_doc_may_be_blank_too() -> None:
    assert question("POST", "/api/highlights", doc="") == replace(HIGHLIGHTS, doc="", updated_doc="")


def test_conversations_with_everything() -> None:
    chat = [{"role": role, "content": ""} for role in ("system", "user", "assistant")]
    fields = {"messages": chat, "n_branch_tokens": 20, "n_future_tokens": 64}
    messages = tuple((message["role"], "") for message in chat)
    assert question("POST", "/api/continue_messages", **fields) == BranchesQuestion(messages, 20, 64, False)
    assert question("POST", "/api/logprobs", **fields) == LogprobsQuestion(messages, 20)


def test_the_other_queries_with_everything() -> None:
    assert question("GET", "/api/next_token", prompt="", doc_in_progress="", k=1) == BranchesQuestion(
        (("user", "\n\na"), ("assistant", "")), 1, 1, True
    )
    assert question("GET", "/api/gen_revisions", n=64, max_length=8192) == RevisionsQuestion("a", "b", 64, 8192)


@pytest.mark.parametrize("path", POSTS)
def test_null_is_absent(path: str) -> None:
    optional = ["model", "prompt", "updated_doc", "k", "window", "offsets", "detail"]
    if path != "/api/highlights":
        optional = ["model", "n_branch_tokens", "n_future_tokens"]
    nulls: dict[str, Any] = dict.fromkeys(optional)
    assert question("POST", path, **nulls) == question("POST", path)


@pytest.mark.parametrize(("method", "path"), REQUIRED)
def test_what_is_required_may_not_be_missing(method: str, path: str) -> None:
    for name in REQUIRED[method, path]:
        fields = {other: value for other, value in REQUIRED[method, path].items() if other != name}
        assert detail(to_request(method, path, fields), 422) == f"{name}: Field required"
        if method == "POST":
            assert detail(to_request(method, path, {**fields, name: None}), 422) == f"{name}: Field required"


@pytest.mark.parametrize("path", GETS)
def test_a_query_may_hold_names_that_nobody_knows(path: str) -> None:
    assert question("GET", path, _="1", callback="x") == question("GET", path)


@pytest.mark.parametrize("path", POSTS)
def test_a_body_may_not_hold_names_that_nobody_knows(path: str) -> None:
    assert "future" in refused("POST", path, 422, future=1)


@pytest.mark.parametrize(("method", "path"), REQUIRED)
def test_the_tokenizer_is_told_the_model_the_path_and_what_was_sent(method: str, path: str) -> None:
    request = to_request(method, path, REQUIRED[method, path])
    _, tokenizer = answered(request)
    sent = request.url.query if method == "GET" else request.content
    assert [(seen.model, seen.path, seen.body) for seen in tokenizer.requests] == [("m", path, sent)]


@pytest.mark.parametrize(("method", "path"), REQUIRED)
@pytest.mark.parametrize(
    ("fields", "default", "chosen"),
    [({"model": "a"}, None, "a"), ({"model": "b/anything"}, "a", "b"), ({}, "b", "b"), ({"model": ""}, "b", "b")],
)
def test_the_model_of_a_question(
    method: str, path: str, fields: dict[str, str], default: str | None, chosen: str
) -> None:
    tokenizer, settings = ScriptedTokenizer(), GatewaySettings(default_model=default)
    api = make_api(FixedModel("a"), FixedModel("b"), settings=settings, tokenizer=tokenizer)
    assert ask(api, to_request(method, path, REQUIRED[method, path] | fields)).status_code == 200
    assert [request.model for request in tokenizer.requests] == [chosen]


@pytest.mark.parametrize(
    ("method", "path", "field", "least", "most"),
    [
        ("GET", "/api/highlights", "k", 1, 7),
        ("POST", "/api/highlights", "k", 1, 7),
        ("GET", "/api/next_token", "k", 1, 7),
        ("POST", "/api/continue_messages", "n_branch_tokens", 1, 7),
        ("POST", "/api/continue_messages", "n_future_tokens", 0, 4),
        ("POST", "/api/logprobs", "n_branch_tokens", 1, 7),
        ("GET", "/api/gen_revisions", "n", 1, 3),
        ("GET", "/api/gen_revisions", "max_length", 1, 6),
    ],
)
def test_numbers_have_ranges(method: str, path: str, field: str, least: int, most: int) -> None:
    others = {"n": 1, "max_length": 1} if path == "/api/gen_revisions" else {}
    for number in (least, most):
        asked(method, path, SMALL, **others | {field: number})
    for number in (least - 1, most + 1, -(10**30), 10**30):
        assert refused(method, path, 422, SMALL, **others | {field: number}) == (
            f"`{field}` must be between {least} and {most}."
        )


WRONG_TYPES: dict[tuple[str, str], list[Any]] = {
    ("/api/highlights", "k"): ["5", 5.0, True, [5], {}],
    ("/api/highlights", "window"): ["true", 1, []],
    ("/api/highlights", "detail"): ["true", 0],
    ("/api/highlights", "offsets"): ["utf8", "", 16],
    ("/api/highlights", "doc"): [5],
    ("/api/highlights", "prompt"): [True],
    ("/api/highlights", "updated_doc"): [["a"]],
    ("/api/highlights", "model"): [{}],
    ("/api/continue_messages", "n_future_tokens"): ["1", 0.5],
    ("/api/continue_messages", "messages"): ["text", {}, 1],
    ("/api/logprobs", "n_branch_tokens"): ["5"],
}


@pytest.mark.parametrize(
    ("path", "field", "value"), [(*field, value) for field, values in WRONG_TYPES.items() for value in values]
)
def test_a_body_has_types(path: str, field: str, value: object) -> None:
    assert refused("POST", path, 422, **{field: value}).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ("Hi", "messages.1"),
        ({"role": "user"}, "messages.1.content"),
        ({"content": "x"}, "messages.1.role"),
        ({"role": "nobody", "content": "x"}, "messages.1.role"),
        ({"role": "user", "content": None}, "messages.1.content"),
        ({"role": "user", "content": [{"type": "text", "text": "x"}]}, "messages.1.content"),
    ],
)
@pytest.mark.parametrize("path", ["/api/continue_messages", "/api/logprobs"])
def test_a_message_has_types_and_the_wrong_one_is_named(path: str, message: object, where: str) -> None:
    assert refused("POST", path, 422, messages=[CHAT[0], message]).startswith(f"{where}: ")


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        *[("/api/highlights", "k", value) for value in ("", "many", "5.5", "9" * 5000, "NaN", "inf")],
        ("/api/highlights", "window", "perhaps"),
        ("/api/highlights", "offsets", "utf8"),
        ("/api/next_token", "k", "0x5"),
        ("/api/gen_revisions", "n", "1e3"),
        ("/api/gen_revisions", "max_length", " "),
    ],
)
def test_a_query_has_types(path: str, field: str, value: str) -> None:
    assert refused("GET", path, 422, **{field: value}).startswith(f"{field}: ")


def test_what_is_refused_is_not_repeated() -> None:
    assert "secret" not in refused("POST", "/api/highlights", 422, k="secret")
    assert len(refused("POST", "/api/highlights", 422, **{"x" * 10_000: 1})) < 300


@pytest.mark.parametrize("path", ["/api/continue_messages", "/api/logprobs"])
def test_a_conversation_has_messages(path: str) -> None:
    assert refused("POST", path, 400, messages=[]) == "At least one message must be provided."
    too_many = [*CHAT, {"role": "user", "content": ""}]
    assert refused("POST", path, 400, SMALL, messages=too_many) == "`messages` may have 2 entries, not 3."


@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("GET", "/api/highlights", "doc"),
        ("POST", "/api/highlights", "doc"),
        ("POST", "/api/highlights", "prompt"),
        ("POST", "/api/highlights", "updated_doc"),
        *[("GET", "/api/next_token", name) for name in ("original_doc", "prompt", "doc_in_progress")],
        *[("GET", "/api/gen_revisions", name) for name in ("doc", "prompt")],
    ],
)
def test_texts_have_a_length(method: str, path: str, field: str) -> None:
    others: dict[str, Any] = {"k": 1, "prompt": ""} if path != "/api/gen_revisions" else {"n": 1, "max_length": 1}
    asked(method, path, SMALL, **others | {field: "狐" * 50})
    assert refused(method, path, 400, SMALL, **others | {field: "狐" * 51}) == (
        f"`{field}` may have 50 characters, not 51."
    )


@pytest.mark.parametrize("path", ["/api/continue_messages", "/api/logprobs"])
def test_the_messages_of_a_conversation_have_one_length_together(path: str) -> None:
    def chat(*contents: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": content} for content in contents]

    asked("POST", path, SMALL, messages=chat("a" * 25, "b" * 25))
    assert refused("POST", path, 400, SMALL, messages=chat("a" * 25, "b" * 26)) == (
        "`messages` may have 50 characters, not 51."
    )


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"doc"', b'{"doc": "\xff"}', b'{"doc": "\\ud800"}', b'{"k": NaN}'])
def test_a_body_that_is_no_json_object_is_400(path: str, body: bytes) -> None:
    assert "JSON object" in detail(post(path, body), 400)


@pytest.mark.parametrize(
    ("query", "doc"),
    [("doc=a+b%20c", "a b c"), ("doc=%F0%9F%A6%8A", "🦊"), ("doc=%ff", "\ufffd"), ("doc=a&doc=b", "b")],
)
def test_texts_of_a_query(query: str, doc: str) -> None:
    _, tokenizer = answered(get(f"/api/highlights?{query}"))
    assert [request.question for request in tokenizer.requests] == [replace(HIGHLIGHTS, doc=doc, updated_doc=doc)]
