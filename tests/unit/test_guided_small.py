import json
from typing import Any

import pytest

from deployments.guided.small import is_small, is_small_grammar, is_small_schema
from deployments.guided_types import GrammarSpec

PLAIN: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    "schema",
    [
        PLAIN,
        {},
        {"enum": ["a", 1, None]},
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "properties": {"a": PLAIN}, "additionalProperties": False},
    ],
)
def test_plain_schemas_are_small(schema: dict[str, Any]) -> None:
    assert is_small_schema(json.dumps(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(.{0,1000}){0,1000}"},
        {"type": "string", "maxLength": 1000},
        {"$ref": "#"},
        {"anyOf": [PLAIN]},
        {"type": "array", "items": {"pattern": "a"}},
        {"properties": {"a": {"minItems": 10**6}}},
        {"properties": []},
        {"items": [PLAIN]},
        {"enum": "ab"},
        {"enum": list(range(1000))},
        {"additionalProperties": PLAIN},
        {"description": "x" * 2000},
        [],
        True,
    ],
)
def test_others_are_not(schema: Any) -> None:
    assert not is_small_schema(json.dumps(schema))


@pytest.mark.parametrize("text", ["", "{", "nan", "[" * 1000])
def test_what_is_no_schema_is_not(text: str) -> None:
    assert not is_small_schema(text)


def test_depth_is_bounded() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(7):
        schema = {"type": "array", "items": schema}
    assert not is_small_schema(json.dumps(schema))


@pytest.mark.parametrize(
    ("kind", "text", "small"),
    [
        ("json_object", "", True),
        ("json", json.dumps(PLAIN), True),
        ("choice", '["yes", "no"]', True),
        ("choice", '["a\\"b"]', False),
        ("choice", '["a\\nb"]', False),
        ("choice", '[""]', False),
        ("choice", "[]", False),
        ("choice", json.dumps(["x" * 100] * 100), False),
        ("choice", "[1, 2]", False),
        ("choice", "not JSON", False),
        ("choice", '["vllm-graph:guided:' + "0" * 64 + '"]', False),
        ("regex", "a", False),
        ("grammar", 'root ::= "a"', False),
        ("structural_tag", "{}", False),
    ],
)
def test_which_constraints_are_small(kind: Any, text: str, small: bool) -> None:
    assert is_small(GrammarSpec(kind, text)) is small


def test_json_without_whitespace_is_not_the_engines() -> None:
    """An engine core has one setting for it."""
    assert not is_small(GrammarSpec("json_object", "", any_whitespace=False))
    assert is_small(GrammarSpec("choice", '["a"]', any_whitespace=False))


def test_a_choice_is_recognized_as_vllm_writes_it() -> None:
    assert is_small_grammar('root ::= "yes" | "no" | "don\'t know"')
    assert not is_small_grammar('root ::= "a" | root root')
