"""What becomes of each constraint: refused by name, or written for the compilers that enforce it."""

import json
import subprocess
import sys
from typing import Any

import pytest

from config.guided import ConstraintLimits
from deployments.errors import InvalidRequestError
from deployments.guided.plan import Source, plan
from deployments.guided_types import GrammarSpec
from tests.hostile_constraints import CONSTRAINTS, HostileConstraint, as_request_fields, as_spec

LIMITS = ConstraintLimits()
STRING, OBJECT, INTEGER = {"type": "string"}, {"type": "object"}, {"type": "integer"}


def for_xgrammar(schema: Any, **fields: bool) -> Any:
    source = plan(GrammarSpec("json", json.dumps(schema), **fields), LIMITS).xgrammar
    return None if source is None else json.loads(source.text)


def for_llguidance(schema: Any, **fields: bool) -> Any:
    text = plan(GrammarSpec("json", json.dumps(schema), **fields), LIMITS).llguidance
    return None if text is None else json.loads(text)["grammars"][0]["json_schema"]


def message(spec: GrammarSpec, limits: ConstraintLimits = LIMITS) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        plan(spec, limits)
    return str(caught.value)


def test_there_are_many_hostile_constraints() -> None:
    assert len(CONSTRAINTS) >= 80
    assert len({row.id for row in CONSTRAINTS}) == len(CONSTRAINTS)


@pytest.mark.parametrize("row", [row for row in CONSTRAINTS if row.static and not row.accepted], ids=lambda row: row.id)
def test_hostile_constraints_are_refused_by_reading(row: HostileConstraint) -> None:
    assert row.words in message(as_spec(row))


@pytest.mark.parametrize("row", [row for row in CONSTRAINTS if row.accepted or not row.static], ids=lambda row: row.id)
def test_the_others_are_for_compilers_to_judge(row: HostileConstraint) -> None:
    planned = plan(as_spec(row), LIMITS)
    assert planned.xgrammar is not None or planned.llguidance is not None


@pytest.mark.parametrize("row", CONSTRAINTS, ids=lambda row: row.id)
def test_hostile_constraints_are_json_bodies(row: HostileConstraint) -> None:
    assert len(as_request_fields(row)) == 1
    json.loads(json.dumps(as_request_fields(row)))


def test_messages_say_which_keyword_and_where() -> None:
    schema = {**OBJECT, "properties": {"tags": {"type": "array", "uniqueItems": True}}}
    assert message(GrammarSpec("json", json.dumps(schema))) == (
        "`uniqueItems` at /properties/tags is not enforced by any compiler; remove it, or set `strict` to false."
    )


def test_what_xgrammar_does_not_enforce_is_for_llguidance() -> None:
    schema = {**OBJECT, "properties": {"a": {**STRING, "maxLength": 3}}}
    planned = plan(GrammarSpec("json", json.dumps(schema)), LIMITS)
    assert planned.xgrammar is None
    assert planned.enforced == ("type", "properties", "maxLength")
    assert for_llguidance(schema) == {
        "type": "object",
        "properties": {"a": {"type": "string", "maxLength": 3}},
        "additionalProperties": False,
        "x-guidance": {"whitespace_flexible": True},
    }


def test_what_llguidance_does_not_enforce_is_for_xgrammar() -> None:
    schema = {**OBJECT, "properties": {"a": INTEGER}, "minProperties": 1}
    assert for_llguidance(schema) is None
    assert for_xgrammar(schema)["minProperties"] == 1


def test_what_needs_both_is_refused() -> None:
    schema = {**OBJECT, "properties": {"a": {**STRING, "maxLength": 3}}, "minProperties": 1}
    found = message(GrammarSpec("json", json.dumps(schema)))
    assert "`maxLength` at /properties/a is not enforced by one compiler and `minProperties` at / by the other" in found


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"allOf": [STRING]}, STRING),
        ({"type": ["integer", "null"], "minimum": 2.5}, {"anyOf": [{"type": "null"}, {**INTEGER, "minimum": 3}]}),
        ({"enum": ["a", 1], **STRING}, {"enum": ["a"]}),
        ({"const": 1.0, "minimum": 1}, {"enum": [1]}),
        ({**STRING, "minimum": 3, "title": "t", "x-a": 1}, STRING),
        ({"anyOf": [False, STRING]}, STRING),
        ({"anyOf": [{}, STRING]}, {}),
        ({**OBJECT, "required": ["a"], "additionalProperties": False, "properties": {"a": {}}},
         {**OBJECT, "required": ["a"], "properties": {"a": True}, "additionalProperties": False}),
        ({"properties": {"a": INTEGER}}, {**OBJECT, "properties": {"a": INTEGER}, "additionalProperties": False}),
        ({"type": "integer", "format": "int32"}, {**INTEGER, "minimum": -(2**31), "maximum": 2**31 - 1}),
        ({"$ref": "#/definitions/a~1b", "definitions": {"a/b": STRING}},
         {"$ref": "#/$defs/d0", "$defs": {"d0": STRING}}),
        ({"$ref": "#/$defs/a%20b", "$defs": {"a b": STRING}, "maxProperties": 1}, STRING),
        ({**OBJECT, "propertyNames": {"enum": ["a"]}},
         {**OBJECT, "properties": {"a": True}, "additionalProperties": False}),
        ({"type": "number", "multipleOf": 2, "maximum": 3}, None),
    ],
)  # fmt: skip
def test_schemas_are_written_anew(schema: Any, expected: Any) -> None:
    assert for_xgrammar(schema) == expected


def test_branches_are_closed_after_they_are_merged() -> None:
    schema = {"allOf": [{"properties": {"a": INTEGER}}, {"properties": {"b": STRING}}], **OBJECT}
    found = for_xgrammar(schema)
    assert list(found["properties"]) == ["a", "b"]
    assert found["additionalProperties"] is False


def test_the_order_of_properties_stays() -> None:
    names = ["z", "a", "m"]
    assert list(for_xgrammar({"properties": {name: {} for name in names}})["properties"]) == names


def test_x_guidance_of_clients_is_dropped() -> None:
    schema = {**STRING, "x-guidance": {"lenient": True}}
    assert for_llguidance(schema, any_whitespace=False) == {**STRING, "x-guidance": {"whitespace_flexible": False}}


def test_work_is_bounded_when_schemas_multiply() -> None:
    branches = [{"anyOf": [{**OBJECT, "properties": {f"{i}{j}": {}}} for j in range(10)]} for i in range(10)]
    assert "max_schema_nodes is 500" in message(
        GrammarSpec("json", json.dumps({"allOf": branches})), ConstraintLimits(max_schema_nodes=500)
    )


def test_depth_as_deep_as_settings_allow() -> None:
    schema: Any = INTEGER
    for _ in range(499):
        schema = {"type": "array", "items": schema}
    before = sys.getrecursionlimit()
    assert plan(GrammarSpec("json", json.dumps(schema)), ConstraintLimits(max_depth=500)).xgrammar is not None
    assert sys.getrecursionlimit() == before


def test_regular_expressions_are_the_same_for_both() -> None:
    planned = plan(GrammarSpec("regex", "^a\\d/$"), LIMITS)
    assert planned.xgrammar == Source("regex", "a[0-9]\\/")
    assert planned.llguidance == json.dumps({"grammars": [{"lark_grammar": "start: /a[0-9]\\//"}]})


def test_choices_are_escaped() -> None:
    planned = plan(GrammarSpec("choice", json.dumps(['a"b', "\\", "\n\x01"])), LIMITS)
    assert planned.xgrammar == Source("ebnf", r'root ::= "a\"b" | "\\" | "\n\u0001"')


def test_forms_of_grammars() -> None:
    assert plan(GrammarSpec("grammar", 'root ::= "a"'), LIMITS).xgrammar == Source("ebnf", 'root ::= "a"')
    lark = plan(GrammarSpec("grammar", 'start: "a"'), LIMITS)
    assert lark.xgrammar == Source("lark", 'start: "a"')
    assert lark.llguidance is not None


def test_structural_tags_get_schemas_that_hold() -> None:
    content = {"type": "json_schema", "json_schema": {**OBJECT, "properties": {"a": INTEGER}, "title": "t"}}
    tags = [{"begin": "<a>", "content": content, "end": "</a>"}]
    tag = {"type": "structural_tag", "format": {"type": "triggered_tags", "triggers": ["<a"], "tags": tags}}
    planned = plan(GrammarSpec("structural_tag", json.dumps(tag)), LIMITS)
    assert planned.enforced == ("type", "properties")
    assert planned.xgrammar is not None
    found = json.loads(planned.xgrammar.text)["format"]["tags"][0]
    assert found["type"] == "tag"
    assert found["content"]["json_schema"]["additionalProperties"] is False


def test_planning_imports_no_compiler() -> None:
    heavy = "{'torch', 'xgrammar', 'llguidance', 'ray', 'vllm'}"
    code = f"import sys, deployments.guided.plan; print(sorted({heavy} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "[]\n"
