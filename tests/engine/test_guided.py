"""Guided decoding against the real engine: every kind of constraint, every API, compiled once and never in the core."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema_rs
import openai
import pytest

from tests.budget_cases import TELL, budget_of
from tests.cases import assert_openai_error
from tests.engine.test_openai import ASK_WEATHER, NAMED, WEATHER
from tests.harness import PLANES, Server

planes = PLANES

ASK: Any = [{"role": "user", "content": "Give me a JSON object with the keys name and age."}]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
TAG = {
    "type": "structural_tag",
    "format": {"type": "tag", "begin": "<a>", "content": {"type": "json_schema", "json_schema": PERSON}, "end": "</a>"},
}
UNENFORCED = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "maxItems": 3}
ARITHMETIC = 'root ::= term (" + " term)*\nterm ::= [0-9] | "(" root ")"'


def fits_person(text: str) -> None:
    jsonschema_rs.validate(PERSON, json.loads(text))


def is_object(text: str) -> None:
    assert isinstance(json.loads(text), dict)


def matches(pattern: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        assert re.fullmatch(pattern, text, re.DOTALL), text

    return check


def is_tagged(text: str) -> None:
    assert text.startswith("<a>")
    assert text.endswith("</a>")
    fits_person(text[3:-4])


KINDS: dict[str, tuple[dict[str, Any], Callable[[str], None]]] = {
    "response_format": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}},
        fits_person,
    ),
    "json": ({"structured_outputs": {"json": PERSON}}, fits_person),
    "json as a text": ({"structured_outputs": {"json": json.dumps(PERSON)}}, fits_person),
    "json_object": ({"response_format": {"type": "json_object"}}, is_object),
    "regex": ({"structured_outputs": {"regex": "[a-z]{3}-[0-9]{2,4}"}}, matches("[a-z]{3}-[0-9]{2,4}")),
    "choice": (
        {"structured_outputs": {"choice": ["red", 'a "quoted" one', "naïve"]}},
        matches('red|a "quoted" one|naïve'),
    ),
    "grammar": ({"structured_outputs": {"grammar": ARITHMETIC}}, matches(r"[0-9+ ()]+")),
    "structural_tag": ({"response_format": TAG}, is_tagged),
    "guided_json": ({"guided_json": PERSON}, fits_person),
    "guided_regex": ({"guided_regex": "[0-9]{3}"}, matches("[0-9]{3}")),
    "guided_choice": ({"guided_choice": ["yes", "no"]}, matches("yes|no")),
    "guided_grammar": ({"guided_grammar": ARITHMETIC}, matches(r"[0-9+ ()]+")),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def body_of(kind: str, **fields: Any) -> dict[str, Any]:
    return {"model": "demo", "messages": ASK, "temperature": 1, "max_tokens": 200} | KINDS[kind][0] | fields


def post(server: Server, path: str, body: dict[str, Any], **headers: str) -> Any:
    response = server.http.post(path, json=body, headers=headers, timeout=60)
    assert response.status_code == 200, response.text
    return response


def streamed(server: Server, body: dict[str, Any]) -> tuple[str, str]:
    """Return a streamed chat's text and finish_reason."""
    response = post(server, "/v1/chat/completions", body | {"stream": True})
    events = [json.loads(line[6:]) for line in response.text.split("\n\n") if line.startswith("data: {")]
    choices = [event["choices"][0] for event in events if event["choices"]]
    return "".join(c["delta"].get("content") or "" for c in choices), choices[-1]["finish_reason"]


@each_kind
def test_answers_fit_at_temperature_1(server: Server, kind: str) -> None:
    check = KINDS[kind][1]
    num_whole = 0
    with ThreadPoolExecutor(10) as pool:
        posts = pool.map(lambda seed: post(server, "/v1/chat/completions", body_of(kind, seed=seed)).json(), range(20))
        for answer in posts:
            (choice,) = answer["choices"]
            if choice["finish_reason"] == "stop":  # one that was cut off by max_tokens need not be whole
                check(choice["message"]["content"])
                num_whole += 1
    assert num_whole >= 10


@each_kind
def test_streamed_answers_fit(server: Server, kind: str) -> None:
    for seed in range(3):
        text, reason = streamed(server, body_of(kind, seed=seed))
        if reason == "stop":
            KINDS[kind][1](text)


def test_completions(server: Server) -> None:
    body = {"model": "demo", "prompt": ["Age:", "Year:"], "structured_outputs": {"regex": "[0-9]{3}"}, "n": 2}
    choices = post(server, "/v1/completions", body).json()["choices"]
    assert len(choices) == 4
    for choice in choices:
        matches("[0-9]{3}")(choice["text"])


def test_responses(server: Server) -> None:
    form: Any = {"format": {"type": "json_schema", "name": "p", "schema": PERSON, "strict": True}}
    for seed in range(3):
        answer = server.openai.responses.create(
            model="demo", input="A person.", text=form, max_output_tokens=300, temperature=0.3 * seed
        )
        if answer.status == "completed":
            fits_person(answer.output_text)


@pytest.mark.parametrize("description_bytes", [0, 200_000])
def test_a_bad_constraint_of_a_streamed_response_is_400(server: Server, description_bytes: int) -> None:
    """vLLM begins with two events that repeat the request, and asks its engine after that."""
    tool = WEATHER["function"] | {"type": "function", "description": "x" * description_bytes}
    body = {"model": "demo", "input": "Hi", "stream": True, "tools": [tool], "tool_choice": "none"}
    form = {"format": {"type": "json_schema", "name": "p", "schema": UNENFORCED}}
    assert_openai_error(server.http.post("/v1/responses", json=body | {"text": form}), 400)


def test_beams_cannot_be_constrained(server: Server) -> None:
    body = body_of("json", use_beam_search=True, n=2, temperature=0)
    assert_openai_error(server.http.post("/v1/chat/completions", json=body), 400)


def test_messages(server: Server) -> None:
    tool = {"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]}
    body = {
        "model": "demo",
        "max_tokens": 200,
        "messages": ASK_WEATHER,
        "tools": [tool],
        "tool_choice": {"type": "any"},
    }
    blocks = post(server, "/v1/messages", body).json()["content"]
    (call,) = [block for block in blocks if block["type"] == "tool_use"]
    assert isinstance(call["input"]["city"], str)


def test_choices_of_one_request(server: Server) -> None:
    answer = post(server, "/v1/chat/completions", body_of("json", n=4)).json()
    for choice in answer["choices"]:
        if choice["finish_reason"] == "stop":
            fits_person(choice["message"]["content"])


LIMITS: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Paris", "Rome"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city", "days"],
        },
    },
}


@pytest.mark.parametrize("strict", [None, True])
@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize("stream", [False, True])
def test_forced_calls_fit_their_tools(server: Server, choice: Any, strict: bool | None, stream: bool) -> None:
    tool = LIMITS | {"function": LIMITS["function"] | ({} if strict is None else {"strict": strict})}
    for seed in range(10):
        create: Any = server.openai.chat.completions.create
        answer = create(
            model="demo",
            messages=ASK_WEATHER,
            tools=[tool],
            tool_choice=choice,
            temperature=1,
            seed=seed,
            stream=stream,
        )
        for arguments in called(answer) if not stream else called_in(answer):
            jsonschema_rs.validate(LIMITS["function"]["parameters"], json.loads(arguments))


def called(answer: Any) -> Iterator[str]:
    for call in answer.choices[0].message.tool_calls or []:
        yield call.function.arguments


def called_in(stream: Any) -> Iterator[str]:
    calls: dict[int, str] = {}
    for chunk in stream:
        for delta in chunk.choices[0].delta.tool_calls or [] if chunk.choices else []:
            calls[delta.index] = calls.get(delta.index, "") + (delta.function.arguments or "")
    yield from calls.values()


def unique(name: str) -> dict[str, Any]:
    """Make a schema that nobody has compiled yet, and that no engine may compile itself."""
    return {"type": "object", "properties": {name: {"type": "string", "pattern": "^[a-z]{1,5}$"}}, "required": [name]}


def test_many_first_requests_make_one_compilation_and_none_in_the_core(server: Server) -> None:
    before, cores = server.compiler(), server.grammars("model-demo")
    body = body_of("json", structured_outputs={"json": unique("at_once")}, max_tokens=30)
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda seed: post(server, "/v1/chat/completions", body | {"seed": seed}), range(32)))
    assert len(answers) == 32
    assert server.compiler().num_compiled == before.num_compiled + 1
    (core,), (core_before,) = server.grammars("model-demo"), cores
    assert core.num_used == core_before.num_used + 32
    assert core.num_held == core_before.num_held + 1
    assert core.num_compiled == core_before.num_compiled


def test_the_wait_for_a_constraint_is_a_part_of_the_budget(server: Server) -> None:
    properties = {f"field {number}": {"type": "string", "maxLength": number + 1} for number in range(40)}
    body = body_of("json", structured_outputs={"json": {"type": "object", "properties": properties}}, max_tokens=2)
    waits_s = [budget_of(post(server, "/v1/chat/completions", body, **TELL))["guided_wait_s"] for _ in range(2)]
    assert waits_s[0] > waits_s[1]  # cold, then warm


def test_a_receipt_says_what_holds(server: Server) -> None:
    body = body_of("json", structured_outputs={"json": unique("receipt")}, max_tokens=5)
    first, again = (
        json.loads(post(server, "/v1/chat/completions", body, **{"x-guided-receipt": "1"}).headers["x-guided-receipt"])
        for _ in range(2)
    )
    assert {"type", "properties", "required", "pattern"} <= set(first["enforced"])
    assert first["ignored"] == []
    assert first["compile_ms"] > 0
    assert (first["cached"], again["cached"]) == (False, True)
    assert first["id"] == again["id"]
    assert "x-guided-receipt" not in post(server, "/v1/chat/completions", body).headers
    stream = post(server, "/v1/chat/completions", body | {"stream": True}, **{"x-guided-receipt": "1"})
    assert json.loads(stream.headers["x-guided-receipt"])["id"] == first["id"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_nothing_enforces_is_refused_by_name(server: Server, stream: bool) -> None:
    body = body_of("json", structured_outputs={"json": UNENFORCED}, stream=stream)
    response = server.http.post("/v1/chat/completions", json=body)
    assert_openai_error(response, 400)
    assert "uniqueItems" in response.text


def test_without_strict_it_is_left_out_and_named(server: Server) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": UNENFORCED, "strict": False}}
    body = body_of("json", structured_outputs=None, response_format=form, max_tokens=100)
    response = post(server, "/v1/chat/completions", body, **{"x-guided-receipt": "1"})
    assert json.loads(response.headers["x-guided-receipt"])["ignored"] == ["uniqueItems"]


def test_a_grammar_is_compiled_ahead(server: Server) -> None:
    spec = unique("ahead")
    made = post(server, "/v1/grammars", {"model": "demo", "kind": "json", "spec": spec}).json()
    assert made["kind"] == "json"
    assert made["bytes"] > 0
    assert made["backend"] in ("xgrammar", "llguidance")
    found = server.http.get(f"/v1/grammars/{made['id']}", params={"model": "demo"})
    assert found.json()["id"] == made["id"]
    before = server.compiler().num_compiled
    body = body_of("json", structured_outputs={"json": spec}, max_tokens=5)
    receipt = post(server, "/v1/chat/completions", body, **{"x-guided-receipt": "1"}).headers["x-guided-receipt"]
    assert json.loads(receipt)["id"] == made["id"]
    assert server.compiler().num_compiled == before


def test_what_the_settings_list_is_ready_at_the_first_request(server: Server) -> None:
    body = body_of("json", structured_outputs={"regex": "[0-9]{7}"})
    receipt = post(server, "/v1/chat/completions", body, **{"x-guided-receipt": "1"}).headers["x-guided-receipt"]
    assert json.loads(receipt)["cached"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "json"},
        {"kind": "nonsense", "spec": "a"},
        {"kind": "regex", "spec": "("},
        {"kind": "regex", "spec": 3},
        {"kind": "json", "spec": {"type": "nonsense"}},
        {"kind": "choice", "spec": []},
        {"kind": "grammar", "spec": "root ::= root"},
        {"kind": "regex", "spec": "a", "strict": "yes"},
        {"kind": "regex", "spec": "a", "unknown": 1},
    ],
)
def test_what_is_no_grammar_is_400(server: Server, body: dict[str, Any]) -> None:
    assert_openai_error(server.http.post("/v1/grammars", json={"model": "demo"} | body), 400)


@pytest.mark.parametrize("name", ["json-" + "0" * 64, "nonsense", "json-1"])
def test_an_unknown_grammar_is_404(server: Server, name: str) -> None:
    assert_openai_error(server.http.get(f"/v1/grammars/{name}"), 404)


def test_the_official_client_raises_before_a_stream_begins(server: Server) -> None:
    extra = {"structured_outputs": {"regex": "(a"}}
    with pytest.raises(openai.BadRequestError):
        server.openai.chat.completions.create(model="demo", messages=ASK, stream=True, extra_body=extra)


@pytest.mark.parametrize(
    "outputs",
    [
        {"json_object": False},
        {"whitespace_pattern": " ", "json": PERSON},
        {"disable_additional_properties": True, "json": PERSON},
        {"json": PERSON, "regex": "a"},
        {},
        {"nonsense": 1},
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_fields_without_effect_are_400(server: Server, outputs: dict[str, Any], stream: bool) -> None:
    body = body_of("json", structured_outputs=outputs, stream=stream)
    assert_openai_error(server.http.post("/v1/chat/completions", json=body), 400)


def test_whitespace_can_be_left_out(server: Server) -> None:
    outputs = {"json": PERSON, "disable_any_whitespace": True}
    for seed in range(5):
        text, reason = streamed(server, body_of("json", structured_outputs=outputs, seed=seed))
        if reason == "stop":
            fits_person(text)
            assert not re.search(r"\s", re.sub(r'"([^"\\]|\\.)*"', "", text)), text
