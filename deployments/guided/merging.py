"""Two sets of JSON Schema keywords made into one that says both."""

import json
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from deployments.guided.patterns import Pattern

Sub = tuple[Any, str]
"""A schema as it was written, and its JSON pointer."""
Subs = tuple[Sub, ...]
"""Schemas that hold together."""
Part = dict[str, Any]
"""Keywords of one schema without `allOf`, `anyOf`, `oneOf` and `$ref`. Schemas in it are Subs; `types` is a set,
`patterns` has Patterns, `patternProperties` a pair of Pattern and Subs for each text. Or just `ref`: a pointer."""

OBJECT_KEYWORDS = ("properties", "patternProperties", "additionalProperties")


class ImpossibleError(Exception):
    """No value satisfies both."""


class InseparableError(Exception):
    """Nobody can say what both together allow; names the keyword."""


def merge(one: Part, other: Part) -> Part:
    """Return what holds when both do; raises ImpossibleError, or InseparableError."""
    if not one or not other:
        return one or other
    merged = {**one, **other}
    for keyword, rule in RULES.items():
        if keyword in one and keyword in other:
            merged[keyword] = rule(one[keyword], other[keyword])
    if any(keyword in part for part in (one, other) for keyword in OBJECT_KEYWORDS):
        _merge_objects(one, other, merged)
    if any(keyword in part for part in (one, other) for keyword in ("prefixItems", "items")):
        _merge_arrays(one, other, merged)
    return merged


def _types(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    found = one & other
    if ("integer" in one and "number" in other) or ("number" in one and "integer" in other):
        found |= {"integer"}
    if not found:
        raise ImpossibleError
    return found


def _enum(one: list[Any], other: list[Any]) -> list[Any]:
    keys = {key_of(value) for value in other}
    found = [value for value in one if key_of(value) in keys]
    if not found:
        raise ImpossibleError
    return found


def _multiple(one: float, other: float) -> float:
    first, second = Fraction(str(one)), Fraction(str(other))
    found = Fraction(math.lcm(first.numerator, second.numerator), math.gcd(first.denominator, second.denominator))
    return found.numerator if found.denominator == 1 else float(found)


def _names(one: list[str], other: list[str]) -> list[str]:
    return list(dict.fromkeys([*one, *other]))


RULES: dict[str, Callable[[Any, Any], Any]] = {
    "types": _types,
    "enum": _enum,
    "multipleOf": _multiple,
    "required": _names,
    "patterns": lambda one, other: (*one, *other),
    "propertyNames": lambda one, other: (*one, *other),
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}


def key_of(value: Any) -> str:
    """Return a text that is the same for JSON values that are equal: `1` and `1.0`, not `1` and `true`."""
    return json.dumps(whole_numbers(value), sort_keys=True)


def whole_numbers(value: Any) -> Any:
    """Write floats without a fraction as integers, everywhere in a JSON value."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole_numbers(one) for one in value]
    if isinstance(value, dict):
        return {name: whole_numbers(one) for name, one in value.items()}
    return value


def subs_of(part: Part, name: str) -> Subs:
    """Return what holds for the property `name` of an object."""
    declared: Subs = part.get("properties", {}).get(name, ())
    patterns: dict[str, tuple[Pattern, Subs]] = part.get("patternProperties", {})
    found = declared + tuple(sub for pattern, subs in patterns.values() if pattern.matches(name) for sub in subs)
    is_known = name in part.get("properties", {}) or any(pattern.matches(name) for pattern, _ in patterns.values())
    rest: Subs = part.get("additionalProperties", ())
    return found if is_known else rest


def _merge_objects(one: Part, other: Part, merged: Part) -> None:
    for first, second in ((one, other), (other, one)):
        if "patternProperties" in first and "additionalProperties" in second:
            raise InseparableError("patternProperties")
    names = _names(list(one.get("properties", {})), list(other.get("properties", {})))
    if names:
        # A name's patterns stay beside it, and hold for it there: here only what the other one says.
        merged["properties"] = {name: _own(one, name) + _own(other, name) for name in names}
    patterns = [part.get("patternProperties", {}) for part in (one, other)]
    if any(patterns):
        merged["patternProperties"] = {
            text: (pattern, patterns[0].get(text, (None, ()))[1] + patterns[1].get(text, (None, ()))[1])
            for text, (pattern, _) in {**patterns[0], **patterns[1]}.items()
        }
    if "additionalProperties" in one and "additionalProperties" in other:
        merged["additionalProperties"] = one["additionalProperties"] + other["additionalProperties"]


def _own(part: Part, name: str) -> Subs:
    properties: dict[str, Subs] = part.get("properties", {})
    patterns: dict[str, tuple[Pattern, Subs]] = part.get("patternProperties", {})
    if name in properties or any(pattern.matches(name) for pattern, _ in patterns.values()):
        return properties.get(name, ())
    rest: Subs = part.get("additionalProperties", ())
    return rest


def item_of(part: Part, index: int) -> Subs:
    """Return what holds for one item of an array."""
    prefix: list[Subs] = part.get("prefixItems", [])
    rest: Subs = part.get("items", ())
    return prefix[index] if index < len(prefix) else rest


def _merge_arrays(one: Part, other: Part, merged: Part) -> None:
    length = max(len(part.get("prefixItems", [])) for part in (one, other))
    merged["prefixItems"] = [item_of(one, index) + item_of(other, index) for index in range(length)]
    merged["items"] = one.get("items", ()) + other.get("items", ())


def are_disjoint(branches: list[list[Part]], raw_values: Callable[[Part, str], list[Any] | None]) -> bool:
    """Say whether no value is in two branches, as far as types, values, or one property of all of them show it."""
    groups: dict[str, list[list[Part]]] = {}
    for branch in branches:
        for name in {kind for part in branch for kind in _kinds(part)}:
            groups.setdefault(name, []).append([part for part in branch if name in _kinds(part)])
    return all(len(group) == 1 or _differ(kind, group, raw_values) for kind, group in groups.items())


def _kinds(part: Part) -> set[str]:
    names = part.get("types") or {kind_of(value) for value in part.get("enum", [])}
    found = {"number" if name == "integer" else name for name in names}
    return found or {"null", "boolean", "object", "array", "number", "string"}


def kind_of(value: Any) -> str:
    """Return the JSON type of a value; integers are `number`."""
    if value is None:
        return "null"
    kinds = {bool: "boolean", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "number")


def _differ(kind: str, group: list[list[Part]], raw_values: Callable[[Part, str], list[Any] | None]) -> bool:
    if _are_apart([[part.get("enum") for part in branch] for branch in group]):
        return True
    if kind != "object":
        return False
    shared = [name for name in group[0][0].get("required", ()) if raw_values(group[0][0], name) is not None]
    return any(_are_apart([[raw_values(part, name) for part in branch] for branch in group]) for name in shared)


def _are_apart(branches: list[list[list[Any] | None]]) -> bool:
    seen: set[str] = set()
    for branch in branches:
        keys: set[str] = set()
        for values in branch:
            if values is None:
                return False
            keys |= {key_of(value) for value in values}
        if seen & keys:
            return False
        seen |= keys
    return True
