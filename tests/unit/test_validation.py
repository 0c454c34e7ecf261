"""One row a case: a field just inside its bound passes, just outside it is refused by name."""

import json
from dataclasses import replace
from typing import Any

import pytest

from config.limits import RequestLimits
from deployments.errors import ContextLengthError, InvalidRequestError
from deployments.ingress.validation import known_fields, validate
from deployments.types import ModelInfo
from tests.unit.test_parsing import nested

LIMITS = RequestLimits()
PATH = "/v1/completions"
FIELDS = """model prompt messages n stop stop_sequences bad_words logit_bias logprobs top_logprobs
prompt_logprobs max_tokens max_completion_tokens max_output_tokens min_tokens tokens input allowed_token_ids
stop_token_ids logprob_token_ids tools queries items text_1 data_2 include system stream documents response_format
structured_outputs text output_config chat_template chat_template_kwargs kv_transfer_params""".split()
SCHEMA = {"anyOf": [{"$ref": "#/components/schemas/One"}, {"properties": {name: {} for name in FIELDS[5:]}}]}
DOCUMENT = {
    "paths": {PATH: {"post": {"requestBody": {"content": {"application/json": {"schema": SCHEMA}}}}}},
    "components": {"schemas": {"One": {"properties": {name: {} for name in FIELDS[:5]}}}},
}
INFO = ModelInfo(
    name="m",
    max_model_len=100,
    created=0,
    version="v",
    paths=frozenset({PATH}),
    vocab_size=1000,
    openapi=json.dumps(DOCUMENT),
    chat_template_kwargs=frozenset({"enable_thinking"}),
)

ROWS: list[tuple[str, Any, Any]] = [
    # field, inside, outside
    ("n", 64, 65),
    ("n", 1, "1"),
    ("n", 1, 1.0),
    ("n", 1, True),
    ("n", None, -1),
    ("stream", True, "true"),
    ("stream", None, 1),
    ("logprobs", True, 21),
    ("logprobs", 20, "20"),
    ("top_logprobs", 20, 21),
    ("prompt_logprobs", 0, -1),
    ("stop", ["x"] * 16, ["x"] * 17),
    ("stop", "x" * 1024, "x" * 1025),
    ("stop", ["a"], [""]),
    ("stop", ["a"], ["a", 5]),
    ("stop", "a", {"a": 1}),
    ("stop_sequences", ["x"] * 16, ["x"] * 17),
    ("bad_words", ["x" * 256], ["x" * 257]),
    ("bad_words", ["x"] * 1024, ["x"] * 1025),
    ("logit_bias", {"999": 1.5}, {"1000": 1.5}),
    ("logit_bias", {}, {"-1": 1}),
    ("logit_bias", {"5": 1}, {"5": 1, "fox": 1}),
    ("logit_bias", {"5": 1}, {"5" * 5000: 1}),
    ("logit_bias", {str(i): 1 for i in range(1000)}, {str(i): 1 for i in range(1025)}),
    ("allowed_token_ids", [0, 999], [0, 1000]),
    ("allowed_token_ids", [5], [5, -1]),
    ("allowed_token_ids", [5], [5, "x"]),
    ("allowed_token_ids", [5], [True]),
    ("stop_token_ids", [5] * 16384, [5] * 16385),
    ("prompt", [1, 2, 999], [1, 2, 1000]),
    ("prompt", [1], [1, "a"]),
    ("prompt", [1], [True]),
    ("prompt", [1], [1.5]),
    ("prompt", [[1], [2]], [[1], [1000]]),
    ("prompt", ["a"] * 2048, ["a"] * 2049),
    ("prompt", [1] * 3000, [1] * 3000 + [None]),
    ("input", [[1]], [[-1]]),
    ("prompt", [[], [1]], [[], [1000]]),
    ("prompt", ["a", "b"], ["a"] * 2049),
    ("documents", ["a"] * 2048, ["a"] * 2049),
    ("queries", ["a"] * 2048, [{}] * 2049),
    ("items", ["a"] * 2048, ["a"] * 2049),
    ("text_1", ["a"] * 2048, ["a"] * 2049),
    ("data_2", ["a"] * 2048, [None] * 2049),
    ("include", ["a"] * 16384, ["a"] * 16385),
    ("system", [{}] * 16384, [{}] * 16385),
    ("tokens", [1], [1000]),
    ("input", [{}] * 512, [{}] * 513),
    ("input", ["a"] * 2048, ["a"] * 2048 + [{}]),
    ("max_tokens", 100, -1),
    ("max_tokens", 0, 1.5),
    ("min_tokens", 5, "5"),
    ("messages", [{"content": [{}] * 16384}], [{"content": [1] * 16385}]),
    ("messages", [{"content": [1] * 8192}] * 2, [{"content": [1] * 8192}, {"tool_calls": [1] * 8193}]),
    ("messages", [], [{"content": [{"type": "tool_result", "content": ["a"] * 16385}]}]),
    ("input", [{"content": ["a"] * 16384}], [{"content": ["a"] * 16385}]),
    ("input", [[1] * 20_000], [1, {"content": ["a"] * 16385}]),
    ("messages", [{}] * 4096, [{}] * 4097),
    ("tools", [{}] * 256, [{}] * 257),
    ("structured_outputs", {"regex": "a"}, "regex"),
    ("structured_outputs", {"json": json.dumps(nested(64))}, {"json": json.dumps(nested(65))}),
    ("structured_outputs", {"structural_tag": "no JSON"}, {"structural_tag": json.dumps(nested(65))}),
    ("structured_outputs", {"json": "{"}, {"json": "[" * 250_000}),
    ("structured_outputs", {"json": nested(63)}, {"json": nested(64)}),
    ("structured_outputs", {"regex": "a" * 1000}, {"regex": "a" * 262144}),
    ("response_format", {"schema": "é" * 100_000}, {"schema": "é" * 131072}),
    ("tools", [{"a": nested(62)}], [{"a": nested(70)}]),
    ("chat_template", None, "{{ messages }}"),
    ("chat_template_kwargs", {"enable_thinking": True}, {"colour": 1}),
    ("chat_template_kwargs", {}, "text"),
    ("kv_transfer_params", None, {}),
]


def check(body: dict[str, Any], info: ModelInfo | None = INFO) -> None:
    validate(PATH, body, info, LIMITS)


@pytest.mark.parametrize(("field", "inside", "outside"), ROWS, ids=[f"{n}-{row[0]}" for n, row in enumerate(ROWS)])
def test_bounds(field: str, inside: Any, outside: Any) -> None:
    check({field: inside})
    with pytest.raises(InvalidRequestError) as caught:
        check({field: outside})
    assert caught.value.param == field
    assert len(caught.value.message) < 500, "the message repeats what was sent"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens"])
def test_over_the_window(field: str) -> None:
    with pytest.raises(ContextLengthError, match=r"101.*`m` is 100") as caught:
        check({field: 101})
    assert caught.value.code == "context_length_exceeded"


def test_prompts_times_choices() -> None:
    check({"prompt": ["a"] * 64, "n": 64})
    with pytest.raises(InvalidRequestError, match="4096 answers"):
        check({"prompt": ["a"] * 65, "n": 64})


def test_number_of_fields() -> None:
    check({f"x{number}": None for number in range(1024)})
    with pytest.raises(InvalidRequestError, match="1024 fields"):
        check({f"x{number}": None for number in range(1025)})


def test_unknown_fields() -> None:
    check({"user": "me", "metadata": {"a": 1}, "functions": None})
    for name in ("guided_json", "functions", "max_token", "x" * 10_000):
        with pytest.raises(InvalidRequestError, match="no effect") as caught:
            check({name: 1})
        assert caught.value.param == name[:64]


def test_a_route_below_another_takes_its_fields_too() -> None:
    """As whoever counts the tokens of a request does, with the same body."""
    schema: Any = {"properties": {"prompt": {}}}
    below: Any = {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}
    document: Any = json.loads(INFO.openapi)
    document["paths"][f"{PATH}/render"] = below
    info = replace(INFO, openapi=json.dumps(document))
    validate(f"{PATH}/render", {"prompt": "a", "max_tokens": 5}, info, LIMITS)
    with pytest.raises(InvalidRequestError, match="no effect"):
        validate(f"{PATH}/render", {"prompt": "a", "max_token": 5}, info, LIMITS)


def test_known_fields_of_every_form_of_a_body() -> None:
    assert known_fields(INFO.openapi)[PATH] == frozenset(FIELDS)


def test_a_route_that_is_not_described_has_no_unknown_fields() -> None:
    validate("/pooling", {"whatever": 1}, INFO, LIMITS)


def test_a_model_that_was_never_ready_leaves_the_rest_to_the_engine() -> None:
    check({"whatever": 1, "prompt": [10**9], "max_tokens": 10**9}, None)
    with pytest.raises(InvalidRequestError):
        check({"n": 65}, None)
