"""Schemas drawn at random: whatever is accepted, answers to it are valid."""

import json
import random
from collections.abc import Callable
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from deployments.errors import InvalidRequestError
from deployments.guided.compilers import MatcherError
from tests.guided_matching import Make, answer, schema, with_all

TYPES = ["string", "integer", "number", "object", "array", "null", "boolean"]
VALUES = ["a", "ab", 1, 2.5, None, True, [1], {"a": 1}, 0, 7]
MAX_DEPTH = 3
SEEDS = 40
ANSWERS = 2

Draw = random.Random
Choose = Callable[[Draw], Any]

PLAIN: dict[str, Choose] = {
    "minLength": lambda draw: draw.randint(0, 4),
    "maxLength": lambda draw: draw.randint(2, 6),
    "pattern": lambda draw: draw.choice(["^a", "b$", "^[ab]*$", "a|b", "^.{2}$"]),
    "format": lambda draw: draw.choice(["date", "ipv4", "uuid"]),
    "minimum": lambda draw: draw.choice([-2, 0, 1.5]),
    "maximum": lambda draw: draw.randint(3, 7),
    "exclusiveMinimum": lambda draw: draw.randint(-3, 1),
    "multipleOf": lambda draw: draw.choice([2, 3, 0.5]),
    "minItems": lambda draw: draw.randint(0, 2),
    "maxItems": lambda draw: draw.randint(1, 5),
    "minProperties": lambda draw: draw.randint(0, 2),
    "maxProperties": lambda draw: draw.randint(0, 4),
    "required": lambda draw: draw.sample(["a", "b", "c"], draw.randint(1, 2)),
    "enum": lambda draw: draw.sample(VALUES, 4),
    "unevaluatedItems": lambda _: False,
    "unevaluatedProperties": lambda draw: draw.choice([False, {"type": "null"}]),
    "propertyNames": lambda draw: draw.choice([{"maxLength": 2}, {"enum": ["a", "q"]}, {"pattern": "^[ab]+$"}]),
}


def drawn(draw: Draw, depth: int = 0) -> dict[str, Any]:
    inner: dict[str, Choose] = {
        "properties": lambda draw: {name: drawn(draw, depth + 1) for name in draw.sample("abc", 2)},
        "additionalProperties": lambda draw: draw.choice([True, False, drawn(draw, depth + 1)]),
        "patternProperties": lambda draw: {draw.choice(["^a", "^x", "c$"]): drawn(draw, depth + 1)},
        "items": lambda draw: drawn(draw, depth + 1),
        **dict.fromkeys(
            ("prefixItems", "allOf", "anyOf", "oneOf"), lambda draw: [drawn(draw, depth + 1) for _ in "12"]
        ),
        "$ref": lambda draw: draw.choice(["#/$defs/x", "#/$defs/y"]),
    }
    found: dict[str, Any] = {"type": draw.choice(TYPES)} if draw.random() < 0.7 else {}
    choices = PLAIN | (inner if depth < MAX_DEPTH else {})
    return found | {keyword: choose(draw) for keyword, choose in choices.items() if draw.random() < 0.2}


def compiled(value: dict[str, Any]) -> list[Make]:
    """Return a way to make matchers for each compiler; none when the schema is refused, by whomever."""
    try:
        return list(with_all(schema(value))[1].values())
    except (InvalidRequestError, MatcherError, RuntimeError):
        return []


@pytest.mark.parametrize("block", range(4))
def test_answers_are_valid(block: int) -> None:
    num_answers = 0
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        draw = random.Random(seed)
        value = drawn(draw) | {"$defs": {"x": drawn(draw, MAX_DEPTH), "y": drawn(draw, 2)}}
        validator = jsonschema.Draft202012Validator(value, format_checker=jsonschema.FormatChecker(["date", "ipv4"]))
        answers = [answer(make, seed + i) for make in compiled(value) for i in range(ANSWERS)]
        for text in filter(None, answers):
            num_answers += 1
            assert validator.is_valid(json.loads(text)), (seed, text)
    assert num_answers > 0
