"""Both compilers, given what `plan` makes of a schema, and jsonschema say the same about answers."""

import json
import random
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from deployments.guided.keywords import REFUSED
from deployments.guided.regexes import read_pattern
from deployments.guided_types import GrammarSpec
from tests.guided_keywords import AB, ARRAY, INTEGER, NULL, NUMBER, OBJECT, SAMPLES, STRING, TAGGED
from tests.guided_matching import LIMITS, Make, answer, schema, takes, with_all

NODE = {**OBJECT, "properties": {"v": INTEGER, "n": {"$ref": "#/$defs/n"}}, "required": ["v"]}
NODES = {"$ref": "#/$defs/n", "$defs": {"n": NODE}}

PAIRS: list[tuple[dict[str, Any], list[Any]]] = [
    ({}, [1, "a", None, [], {"a": [True]}]),
    ({"type": ["string", "integer"], "maxLength": 2, "minimum": 1.5}, ["ab", "abc", 1, 2, None]),
    ({"enum": ["a", "bb", 1], "minLength": 2, "type": "string"}, ["a", "bb", 1]),
    ({"enum": [{"a": 1}, {"a": 2}], **OBJECT, "properties": {"a": {"const": 2}}}, [{"a": 1}, {"a": 2}]),
    ({"enum": ['\n"\\é😀', 1.5, -7, True]}, ['\n"\\é😀', 1.5, -7, True, 7, False]),
    ({"const": 1.0}, [1, 2, True]),
    ({**INTEGER, "minimum": -3, "maximum": 200}, [-4, -3, 0, 199, 200, 201, 1.5]),
    ({**INTEGER, "exclusiveMinimum": 1.5, "exclusiveMaximum": 4}, [1, 2, 3, 4]),
    ({**INTEGER, "multipleOf": 7}, [0, 7, -7, 8, 700]),
    ({**INTEGER, "multipleOf": 2, "minimum": -10}, [0, 2, 3, 12]),
    ({**NUMBER, "multipleOf": 0.25}, [0, 0.25, 0.5, 0.3, 7]),
    ({**NUMBER, "exclusiveMinimum": 0, "maximum": 1}, [0, 0.001, 1, 1.001, -1]),
    ({**STRING, "pattern": "^[a-z]+$", "maxLength": 3}, ["abc", "abcd", "", "A"]),
    ({**STRING, "allOf": [{"pattern": "^(a|b)+$"}, {"pattern": "b$"}]}, ["ab", "ba", "b", "c"]),
    ({**STRING, "pattern": "^a|b$"}, ["ab", "ax", "xb", "xax"]),
    ({**STRING, "minLength": 3, "maxLength": 4}, ["😀😀😀", "ab", "a\nb\n", '""""', "abcde"]),
    ({**ARRAY, "items": NULL, "minItems": 2, "maxItems": 3}, [[None], [None] * 2, [None] * 3, [None] * 4, [1, 2]]),
    (
        {**ARRAY, "prefixItems": [NULL, STRING], "items": INTEGER},
        [[], [None], [None, "a", 1], [None, 1], [None, "a", ""]],
    ),
    ({**ARRAY, "prefixItems": [NULL, STRING], "items": False, "minItems": 2}, [[None], [None, "a"], [None, "a", 1]]),
    ({**ARRAY, "prefixItems": [NULL, STRING], "minItems": 1, "maxItems": 1}, [[], [None], [None, "a"]]),
    ({**OBJECT, "properties": AB, "required": ["b"]}, [{"b": ""}, {"a": 1}, {"a": 1, "b": ""}, {"b": "", "c": 1}]),
    ({**OBJECT, "additionalProperties": INTEGER, "minProperties": 1}, [{}, {"a": 1}, {"a": ""}, {"a": 1, "b": 2}]),
    ({**OBJECT, "properties": AB, "required": ["a"], "maxProperties": 1}, [{"a": 1}, {"a": 1, "b": ""}, {}]),
    ({**OBJECT, "propertyNames": {"enum": ["a", "b"]}}, [{"a": 1}, {"c": 1}, {}]),
    ({**OBJECT, "propertyNames": {"maxLength": 2}}, [{"ab": 1}, {"abc": 1}, {}]),
    ({**OBJECT, "properties": AB, "patternProperties": {"^x": NULL}}, [{"x": None}, {"x": 1}, {"a": 1, "xy": None}]),
    ({**OBJECT, "patternProperties": {"^a": NULL}, "properties": {"ab": {"const": 1}}}, [{"ab": 1}, {"ab": None}, {}]),
    ({"allOf": [{**OBJECT, "properties": {"a": {"minimum": 3}}}, {"properties": AB}]}, [{"a": 3, "b": ""}, {"a": 2}]),
    ({**OBJECT, "properties": AB, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, [{}, {"a": 1}, {"b": ""}]),
    ({"anyOf": [{**INTEGER, "maximum": 3}, STRING], "minLength": 1, "minimum": 1}, [1, 4, 0, "", "a"]),
    ({"oneOf": TAGGED}, [{"t": "a"}, {"t": "b"}, {"t": "c"}]),
    (NODES, [{"v": 1}, {"v": 1, "n": {"v": 2}}, {"v": 1, "n": {}}, {"n": {"v": 1}}]),
    ({**NODES, "required": ["n"]}, [{"v": 1}, {"v": 1, "n": {"v": 2}}]),
    ({**ARRAY, "items": {"$ref": "#"}}, [[], [[], [[]]], [1]]),
    (
        {
            "allOf": [{"$ref": "#/$defs/a"}],
            "unevaluatedProperties": False,
            "$defs": {"a": {**OBJECT, "properties": AB}},
        },
        [{"a": 1}, {"c": 1}],
    ),
    *((found.schema, [*found.good, *found.bad]) for name, found in SAMPLES.items() if name not in REFUSED),
]
"""Formats are not among them: jsonschema checks few, and less strictly. docs/guided-keywords.md has them."""

DIFFERENT: dict[tuple[str, str], tuple[dict[str, bool], str]] = {
    ('{"type": "integer", "multipleOf": 7}', "-7"): (
        {"xgrammar": True, "llguidance": False},
        "llguidance has no negative multiples",
    ),
    ('{"type": "number", "multipleOf": 0.25}', "0.5"): (
        {"llguidance": False},
        "llguidance writes 0.50, with as many digits as the divisor has",
    ),
    (json.dumps({**OBJECT, "properties": AB, "required": ["b"]}), '{"b":"","c":1}'): (
        {"xgrammar": False, "llguidance": False},
        "an object that declares properties is closed",
    ),
}
"""Answers that are valid, but that a compiler does not allow, and why. None is allowed that is not valid."""


def is_valid(value: dict[str, Any], instance: Any) -> bool:
    checker = jsonschema.FormatChecker(["date"])
    return bool(jsonschema.Draft202012Validator(as_new_draft(value), format_checker=checker).is_valid(instance))


def as_new_draft(value: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(value.get("items"), list):
        return value
    rest = {name: one for name, one in value.items() if name != "additionalItems"}
    return {**rest, "prefixItems": value["items"], "items": value.get("additionalItems", True)}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: json.dumps(pair[0])[:60])
def test_compilers_and_jsonschema_agree(pair: tuple[dict[str, Any], list[Any]]) -> None:
    value, instances = pair
    _, makes = with_all(schema(value))
    assert makes
    for instance in instances:
        text = json.dumps(instance, ensure_ascii=False, separators=(",", ":"))
        found = {name: takes(make, text) for name, make in makes.items()}
        agreed = dict.fromkeys(makes, is_valid(value, instance))
        expected, _ = DIFFERENT.get((json.dumps(value), text), (agreed, ""))
        assert found == expected, text


def test_what_differs_is_valid() -> None:
    assert all(is_valid(json.loads(value), json.loads(text)) for value, text in DIFFERENT)


@pytest.mark.parametrize("value", [pair[0] for pair in PAIRS], ids=lambda value: json.dumps(value)[:60])
def test_answers_at_random_are_json_and_valid(value: dict[str, Any]) -> None:
    _, makes = with_all(schema(value))
    for make in makes.values():
        answers = [answer(make, seed) for seed in range(3)]
        for found in (found for found in answers if found is not None):
            assert is_valid(value, json.loads(found)), found


@pytest.mark.parametrize("any_whitespace", [True, False])
@pytest.mark.parametrize("kind", ["json", "json_object"])
def test_whitespace_is_as_the_model_says(kind: Any, any_whitespace: bool) -> None:
    _, makes = with_all(GrammarSpec(kind, json.dumps(OBJECT), any_whitespace=any_whitespace))
    assert len(makes) == 2
    for make in makes.values():
        assert takes(make, '{"a":[1]}')
        assert takes(make, '{ "a": [ 1 ] }') is any_whitespace
        assert takes(make, '{"a"\n:[1]}') is any_whitespace


def test_declared_names_cannot_be_written_with_escapes() -> None:
    # JSON readers take `\u0061` for `a`: it must not pass for another name.
    _, makes = with_all(schema({**OBJECT, "properties": {"a": NULL}, "additionalProperties": INTEGER}))
    for make in makes.values():
        assert takes(make, '{"b":1}')
        assert not takes(make, '{"\\u0061":1}')
        assert not takes(make, '{"a":1}')


def test_no_raw_control_characters_in_strings() -> None:
    for value in ({**STRING, "maxLength": 3}, {**STRING, "pattern": "^.{1,3}$"}, STRING):
        _, makes = with_all(schema(value))
        assert not any(takes(make, f'"{char}"') for make in makes.values() for char in "\0\t\n\x1f")


ATOMS = (
    "a 0 ~ - \\. [a-c0] [^a] [\\x20-\\x2e0] \\d \\w \\s \\S (a|0) (|b) [~\\-^] \\u00e9 é [一-龥] \\x01 [\\x00-\\x1f] / "
    '" \\\\ # & [&~] < > \' \\{ \\} (0-) \\t [^\\x00-\\x1f"\\\\] \\x7f [\\x7f-\\xa1] .'
).split()
TEXTS = [*"ab0~-. é中\x01\n\t/\"\\#&<>'{}12^😀A"]


def patterns(seed: int) -> tuple[str, list[str]]:
    """Draw a regular expression, and texts that may match it."""
    draw = random.Random(seed)
    atoms = [
        draw.choice(ATOMS) + draw.choice(["", "", "*", "+", "?", "{2}", "{0,2}"]) for _ in range(draw.randint(1, 4))
    ]
    texts = ["".join(draw.choice(TEXTS) for _ in range(draw.randint(1, 5))) for _ in range(12)]
    return "".join(atoms), texts


@pytest.mark.parametrize("seed", range(60))
def test_regular_expressions_mean_the_same_to_all(seed: int) -> None:
    source, texts = patterns(seed)
    pattern = read_pattern(source, LIMITS, "`regex`", is_search=False)
    value = {**STRING, "pattern": f"^(?:{source})$"}
    as_regex, as_pattern = with_all(GrammarSpec("regex", source))[1], with_all(schema(value))[1]
    assert len(as_regex) == 2
    for text in texts:
        expected = pattern.matches(text)
        assert {takes(make, text) for make in as_regex.values()} == {expected}, text
        quoted = json.dumps(text, ensure_ascii=False)
        assert {takes(make, quoted) for make in as_pattern.values()} == {expected}, text


@pytest.mark.parametrize(
    "texts",
    [['"', "\\", "\n", "\x01\x7f"], ["é😀", "中", "\u2028"], ['a" | "b', "root", "#", "/", "$x", "{}", "[a]", "\t"]],
)
def test_choices_are_themselves_and_nothing_else(texts: list[str]) -> None:
    _, makes = with_all(GrammarSpec("choice", json.dumps(texts)))
    assert len(makes) == 2
    for make in makes.values():
        assert all(takes(make, text) for text in texts)
        assert not any(takes(make, text) for text in ("", "x", "b", texts[0] + texts[1]))


def in_tag(value: Any) -> Make:
    structure = {"begin": "<f>", "schema": value, "end": "</f>"}
    tag = {"structures": [structure], "triggers": ["<f>"]}
    return with_all(GrammarSpec("structural_tag", json.dumps(tag)))[1]["xgrammar"]


def test_schemas_in_structural_tags_hold() -> None:
    make = in_tag({**OBJECT, "properties": {"a": {**STRING, "maxLength": 2}}, "required": ["a"]})
    assert takes(make, 'text <f>{"a": "ab"}</f> more')
    for bad in ('{"a": "abc"}', '{"a": "\t"}', '{"a": "a", "b": 1}', "{}", "Infinity"):
        assert not takes(make, f"<f>{bad}</f>")
