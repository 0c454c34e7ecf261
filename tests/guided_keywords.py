"""What the compilers do with each keyword when it is all they are given, and what is done here: measured.

`python -m tests.guided_keywords` writes docs/guided-keywords.md; a test compares the file with what it would write.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from config.models import PROJECT_ROOT
from deployments.errors import InvalidRequestError
from deployments.guided.compilers import MatcherError
from deployments.guided.keywords import ANNOTATION_FORMATS, ANNOTATIONS, ENFORCED, FORMATS, NUMBER_FORMATS, REFUSED
from deployments.guided.plan import Source, plan
from tests.guided_matching import LIMITS, Make, schema, takes, with_llguidance, with_xgrammar

FILE = PROJECT_ROOT / "docs/guided-keywords.md"


@dataclass(frozen=True)
class Sample:
    """A schema that uses a keyword, with answers that it allows, and that it does not."""

    schema: dict[str, Any]
    good: tuple[Any, ...]
    bad: tuple[Any, ...]


def sample(value: dict[str, Any], good: list[Any], bad: list[Any]) -> Sample:
    return Sample(value, tuple(good), tuple(bad))


STRING, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
ARRAY, OBJECT, NULL = {"type": "array"}, {"type": "object"}, {"type": "null"}
AB = {"a": INTEGER, "b": STRING}
TAGGED = [{**OBJECT, "properties": {"t": {"const": name}}, "required": ["t"]} for name in ("a", "b")]

SAMPLES: dict[str, Sample] = {
    "type": sample({"type": ["integer", "null"]}, [1, None], ["a", 1.5, {}]),
    "enum": sample({"enum": ["a\n", 2, None]}, ["a\n", 2, None], ["a", 3, False]),
    "const": sample({"const": [1]}, [[1]], [[2], [], 1]),
    "minimum": sample({**INTEGER, "minimum": 3}, [3, 40], [2, -4]),
    "maximum": sample({**NUMBER, "maximum": 3.5}, [3.5, -4], [3.6, 40]),
    "exclusiveMinimum": sample({**NUMBER, "exclusiveMinimum": 3}, [3.1, 4], [3, 2]),
    "exclusiveMaximum": sample({**INTEGER, "exclusiveMaximum": 3}, [2, -4], [3, 40]),
    "multipleOf": sample({**INTEGER, "multipleOf": 7, "minimum": 10}, [14, 21], [7, 15]),
    "minLength": sample({**STRING, "minLength": 2}, ["ab", "é\n"], ["a", ""]),
    "maxLength": sample({**STRING, "maxLength": 2}, ["ab", "\n", '"'], ["abc"]),
    "pattern": sample({**STRING, "pattern": "a.b"}, ["a.b", "xa bx", 'a"b'], ["ab", "a\nb"]),
    "format": sample({**STRING, "format": "date"}, ["2024-02-29"], ["2023-02-29", "x"]),
    "minItems": sample({**ARRAY, "minItems": 2}, [[1, 2], [1, 2, 3]], [[], [1]]),
    "maxItems": sample({**ARRAY, "maxItems": 1}, [[], [1]], [[1, 2]]),
    "items": sample({**ARRAY, "items": INTEGER}, [[], [1, 2]], [["a"]]),
    "prefixItems": sample({**ARRAY, "prefixItems": [NULL]}, [[], [None], [None, 1]], [[1]]),
    "additionalItems": sample({**ARRAY, "items": [NULL], "additionalItems": INTEGER}, [[None, 1]], [[None, "a"], [1]]),
    "unevaluatedItems": sample({**ARRAY, "prefixItems": [NULL], "unevaluatedItems": False}, [[None]], [[None, 1]]),
    "properties": sample({**OBJECT, "properties": AB}, [{}, {"a": 1, "b": ""}], [{"a": ""}]),
    "patternProperties": sample({**OBJECT, "patternProperties": {"^a": INTEGER}}, [{"ab": 1}, {}], [{"ab": ""}]),
    "additionalProperties": sample(
        {**OBJECT, "properties": AB, "additionalProperties": NULL}, [{"a": 1, "c": None}, {"c": None}], [{"c": 1}]
    ),
    "unevaluatedProperties": sample(
        {**OBJECT, "properties": AB, "unevaluatedProperties": False}, [{"a": 1}], [{"c": 1}]
    ),
    "propertyNames": sample({**OBJECT, "propertyNames": {"pattern": "^[a-z]+$"}}, [{"a": 1}, {}], [{"A": 1}]),
    "required": sample({**OBJECT, "required": ["a"]}, [{"a": 1}], [{}]),
    "minProperties": sample({**OBJECT, "properties": AB, "minProperties": 1}, [{"a": 1}, {"b": ""}], [{}]),
    "maxProperties": sample({**OBJECT, "properties": AB, "maxProperties": 1}, [{}, {"b": ""}], [{"a": 1, "b": ""}]),
    "allOf": sample({"allOf": [INTEGER, {"minimum": 3}]}, [3], [2, "a"]),
    "anyOf": sample({**INTEGER, "anyOf": [{"minimum": 3}, {"maximum": 1}]}, [3, 1], [2]),
    "oneOf": sample({"oneOf": TAGGED}, [{"t": "a"}, {"t": "b"}], [{"t": "c"}, {}]),
    "$ref": sample({"$ref": "#/$defs/a", "maximum": 3, "$defs": {"a": INTEGER}}, [3], [4, "a"]),
    "not": sample({**INTEGER, "not": {"const": 3}}, [4], [3]),
    "if": sample({**INTEGER, "if": {"minimum": 3}, "then": {"const": 5}}, [1, 5], [4]),
    "uniqueItems": sample({**ARRAY, "items": INTEGER, "uniqueItems": True}, [[1, 2]], [[1, 1]]),
    "contains": sample({**ARRAY, "items": INTEGER, "contains": {"const": 1}}, [[1, 2]], [[2]]),
    "dependentRequired": sample({**OBJECT, "properties": AB, "dependentRequired": {"a": ["b"]}}, [{}], [{"a": 1}]),
    "dependentSchemas": sample(
        {**OBJECT, "properties": AB, "dependentSchemas": {"a": {"required": ["b"]}}}, [{}], [{"a": 1}]
    ),
    "dependencies": sample({**OBJECT, "properties": AB, "dependencies": {"a": ["b"]}}, [{}], [{"a": 1}]),
    "$dynamicRef": sample({"$dynamicRef": "#a", "$defs": {"a": {**INTEGER, "$dynamicAnchor": "a"}}}, [1], ["a"]),
    "$recursiveRef": sample({**ARRAY, "items": {"$recursiveRef": "#"}}, [[[]]], [[1]]),
    "nullable": sample({**INTEGER, "nullable": True}, [1, None], ["a"]),
}

FORMAT_SAMPLES: dict[str, tuple[list[Any], list[Any]]] = {
    "date": (["2024-02-29"], ["2023-02-29", "2024-02-30", "2024-13-01"]),
    "time": (["12:30:00Z", "23:59:59.5+02:00"], ["24:00:00Z", "12:30:00"]),
    "date-time": (["2024-02-29T12:30:00Z"], ["2023-02-29T12:30:00Z", "2024-02-29 12:30:00Z"]),
    "duration": (["P1D", "P1Y2M", "PT5M"], ["P", "1D", "P1Y2W"]),
    "ipv4": (["127.0.0.1"], ["256.0.0.1", "01.2.3.4", "1.2.3"]),
    "ipv6": (["::1", "2001:db8::7"], ["1::2::3", "g::1"]),
    "uuid": (["123e4567-e89b-12d3-a456-426614174000"], ["123e4567"]),
    "hostname": (["a.example"], ["-a.b", "a_b", "a" * 64]),
    "email": (["a.b@c.example", "a@b.co"], ["a", "a..b@c.example", "@b"]),
    "uri": (["http://a/b?c#d", "mailto:a@b.co"], ["a/b", "http://a b"]),
    "json-pointer": (["", "/a/b~1"], ["a", "/~2"]),
    "relative-json-pointer": (["1/a", "0#"], ["/a", "01/a"]),
    "uri-reference": (["a/b", "http://a"], ["a b"]),
    "uri-template": (["{a}"], ["{"]),
    "iri": (["http://é"], ["é b"]),
    "idn-email": (["é@b.co"], ["é"]),
    "idn-hostname": (["é.example"], ["-é"]),
    "iri-reference": (["é/b"], ["é b"]),
    "regex": (["a+"], ["a("]),
    "int32": ([5], [2**31]),
}


def measured(found: Sample, make: Make) -> str:
    """Say what a compiled schema does with the samples."""
    num_bad = sum(takes(make, json.dumps(one, ensure_ascii=False)) for one in found.bad)
    num_good = sum(takes(make, json.dumps(one, ensure_ascii=False)) for one in found.good)
    narrow = "" if num_good == len(found.good) else ", refuses valid answers"
    if num_bad:
        return ("ignored" if num_bad == len(found.bad) else "in part") + narrow
    return "enforced" + narrow


def alone(found: Sample) -> tuple[str, str]:
    """Return what xgrammar and llguidance do with a schema as it was written."""
    text = json.dumps(found.schema)
    grammar = json.dumps({"grammars": [{"json_schema": found.schema}]})
    makes: list[Callable[[], Make]] = [
        lambda: with_xgrammar(Source("json_schema", text)),
        lambda: with_llguidance(grammar),
    ]
    first, second = (_measured_or_refused(found, make) for make in makes)
    return first, second


def _measured_or_refused(found: Sample, make: Callable[[], Make]) -> str:
    try:
        return measured(found, make())
    except (RuntimeError, ValueError, MatcherError):
        return "refused"


def here(found: Sample) -> str:
    """Return what is done with it: who enforces it, or that it is refused."""
    try:
        planned = plan(schema(found.schema), LIMITS)
    except InvalidRequestError:
        return "refused"
    makes = []
    if planned.xgrammar is not None:
        makes.append(("xgrammar", with_xgrammar(planned.xgrammar)))
    if planned.llguidance is not None:
        makes.append(("llguidance", with_llguidance(planned.llguidance)))
    results = [(name, measured(found, make)) for name, make in makes]
    return "; ".join(name if result == "enforced" else f"{name} ({result})" for name, result in results)


def rows(samples: dict[str, Sample]) -> list[str]:
    return [
        f"| `{name}` | {' | '.join(alone(found))} | {here(found)} | `{json.dumps(found.schema)}` |"
        for name, found in samples.items()
    ]


def format_samples() -> dict[str, Sample]:
    kinds = {name: INTEGER if name in NUMBER_FORMATS else STRING for name in FORMAT_SAMPLES}
    return {name: sample({**kinds[name], "format": name}, good, bad) for name, (good, bad) in FORMAT_SAMPLES.items()}


HEADER = "| {} | xgrammar, as written | llguidance, as written | here | measured with |\n|---|---|---|---|---|"

TEXT = """# JSON Schema keywords in constraints

Written by `python -m tests.guided_keywords` from what the compilers do (xgrammar {xgrammar}, llguidance {llguidance});
a test compares. *Enforced*: no answer is against it. *In part*: some are. *Ignored*: it changes nothing. *Refused*: the
compiler, or here the request, ends with an error. *Here* says which compilers enforce the schema once it is written
anew for them; the first is preferred. What is refused here is left out, and named in the receipt, with
`"strict": false`.

{keywords}

Also:

- Objects that declare `properties` or `patternProperties` have no others, unless `additionalProperties` says so.
- A schema without `type` is for the types that its keywords are about: with `properties`, for objects.
- `oneOf` is enforced when no value can be in two of its branches: other types, other values of `enum`, or one
  required property with other values in each. Else it is refused.
- `minProperties` is enforced for objects with declared properties only, and up to one more than are required.
- `multipleOf` of a number, or of an integer with bounds, allows no negative numbers.
- Names in objects may repeat unless they are declared; the last value counts for most readers, and each is valid.
- `$ref` points into the same schema. `$id` in a subschema is refused.

Annotations, which change nothing: {annotations}, and names that begin with `x-`. Unknown keywords are refused.

## Formats

{formats}

Annotations: {annotation_formats}. Others are refused.
"""


def table() -> str:
    """Measure everything, and write the document."""
    from importlib.metadata import version

    return TEXT.format(
        xgrammar=version("xgrammar"),
        llguidance=version("llguidance"),
        keywords="\n".join([HEADER.format("keyword"), *rows(SAMPLES)]),
        formats="\n".join([HEADER.format("format"), *rows(format_samples())]),
        annotations=", ".join(f"`{name}`" for name in sorted(ANNOTATIONS)),
        annotation_formats=", ".join(f"`{name}`" for name in sorted(ANNOTATION_FORMATS)),
    )


def missing() -> set[str]:
    """Return keywords and formats without a sample."""
    return ({*ENFORCED, *REFUSED} - SAMPLES.keys()) | ({*FORMATS, *NUMBER_FORMATS} - FORMAT_SAMPLES.keys())


if __name__ == "__main__":
    FILE.write_text(table(), encoding="utf-8")
