"""What each JSON Schema keyword is to us: enforced, refused, or an annotation; and what its value must be.

Draft 2020-12, with `definitions` and `items` lists of older drafts. How the compilers do with each is measured by the
tests; docs/guided-keywords.md is their result.
"""

import math
from collections.abc import Callable
from typing import Any

TYPES = ("null", "boolean", "object", "array", "number", "integer", "string")

Check = Callable[[Any], bool]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any) -> bool:
    return is_number(value) and value >= 0 and value == int(value)


def is_schema(value: Any) -> bool:
    return isinstance(value, dict | bool)


def is_schemas(value: Any) -> bool:
    return isinstance(value, list) and all(is_schema(one) for one in value)


def is_schema_map(value: Any) -> bool:
    return isinstance(value, dict) and all(is_schema(one) for one in value.values())


def is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value) and len(set(value)) == len(value)


def is_type(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and is_names(names) and all(name in TYPES for name in names)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def is_filled_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


COUNT = (is_count, "a whole number that is not negative")
NUMBER = (is_number, "a number")
SCHEMA = (is_schema, "a schema")
SCHEMAS = (lambda value: is_schemas(value) and bool(value), "a list of schemas that is not empty")
SCHEMA_MAP = (is_schema_map, "an object of schemas")
TEXT = (is_text, "a string")
ANY = (lambda _: True, "anything")

ENFORCED: dict[str, tuple[Check, str]] = {
    "type": (is_type, "one of " + ", ".join(TYPES) + ", or a list of them without repetition"),
    "enum": (is_filled_list, "a list that is not empty"),
    "const": ANY,
    "minimum": NUMBER,
    "maximum": NUMBER,
    "exclusiveMinimum": NUMBER,
    "exclusiveMaximum": NUMBER,
    "multipleOf": (lambda value: is_number(value) and value > 0, "a number above 0"),
    "minLength": COUNT,
    "maxLength": COUNT,
    "pattern": TEXT,
    "format": TEXT,
    "minItems": COUNT,
    "maxItems": COUNT,
    "items": (lambda value: is_schema(value) or is_schemas(value), "a schema, or a list of them"),
    "prefixItems": SCHEMAS,
    "additionalItems": SCHEMA,
    "unevaluatedItems": SCHEMA,
    "properties": SCHEMA_MAP,
    "patternProperties": SCHEMA_MAP,
    "additionalProperties": SCHEMA,
    "unevaluatedProperties": SCHEMA,
    "propertyNames": SCHEMA,
    "required": (is_names, "a list of names without repetition"),
    "minProperties": COUNT,
    "maxProperties": COUNT,
    "allOf": SCHEMAS,
    "anyOf": SCHEMAS,
    "oneOf": SCHEMAS,
    "$ref": TEXT,
}
"""Keywords that answers keep to, and what their values must be. Some hold in part only: docs/guided-keywords.md."""

DEFINITIONS: dict[str, tuple[Check, str]] = {"$defs": SCHEMA_MAP, "definitions": SCHEMA_MAP}
"""They say nothing by themselves."""

REFUSED: dict[str, Check] = {
    "not": lambda value: value is False,
    "if": lambda _: False,
    "uniqueItems": lambda value: value is False,
    "contains": lambda _: False,
    "dependentRequired": lambda value: value == {},
    "dependentSchemas": lambda value: value == {},
    "dependencies": lambda value: value == {},
    "$dynamicRef": lambda _: False,
    "$recursiveRef": lambda _: False,
    "nullable": lambda value: value is False,
}
"""Keywords that no compiler enforces, and for which values they allow everything."""

HARMLESS: dict[str, str] = {"then": "if", "else": "if", "minContains": "contains", "maxContains": "contains"}
"""Keywords that say something only beside another one, which is refused."""

ANNOTATIONS = frozenset(
    "title description default example examples $schema $id id $anchor $dynamicAnchor $recursiveAnchor $vocabulary "
    "$comment readOnly writeOnly deprecated contentMediaType contentEncoding contentSchema discriminator xml "
    "externalDocs markdownDescription".split()
)
"""Keywords that do not change which values are valid. Names with `x-` are annotations too."""

KEYWORDS_OF: dict[str, tuple[str, ...]] = {
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength", "patterns"),
    "array": ("minItems", "maxItems", "items", "prefixItems", "unevaluatedItems"),
    "object": (
        *("properties", "patternProperties", "additionalProperties", "unevaluatedProperties"),
        *("propertyNames", "required", "minProperties", "maxProperties"),
    ),
}
"""Which keywords a schema without `type` must have to be one for this type."""

PAIRS = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"))

NUMBER_FORMATS: dict[str, tuple[int, int]] = {"int32": (-(2**31), 2**31 - 1)}
"""OpenAPI's formats of numbers, with the bounds that they stand for."""

_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(\.{_OCTET}){{3}}"
_H16 = "[0-9A-Fa-f]{1,4}"
_YEAR = "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)"
_MONTH_DAY = "(0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8])"
_DATE = f"({_YEAR}-({_MONTH_DAY})|{_LEAP}-02-29)"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+\-]([01][0-9]|2[0-3]):[0-5][0-9])"
_DAYS = r"([0-9]+D|[0-9]+M([0-9]+D)?|[0-9]+Y([0-9]+M([0-9]+D)?)?)"
_HOURS = r"T([0-9]+S|[0-9]+M([0-9]+S)?|[0-9]+H([0-9]+M([0-9]+S)?)?)"
_LABEL = "[0-9A-Za-z]([0-9A-Za-z\\-]{0,61}[0-9A-Za-z])?"
_HOST = rf"{_LABEL}(\.{_LABEL}){{0,3}}"
_ATOM = "[0-9A-Za-z!#$%&'*+/=?^_`{|}~\\-]+"
_URI_CHAR = r"([A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})"
_URI_TAIL = rf"(\?({_URI_CHAR}|\?)*)?(#({_URI_CHAR}|\?)*)?"
_PLAIN = r"[ !#-.0-\x5b\x5d-}\xa1-\ud7ff]"
_POINTER = rf"(/({_PLAIN}|~[01])*)*"

FORMATS: dict[str, str] = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "duration": f"P({_DAYS}({_HOURS})?|{_HOURS}|[0-9]+W)",
    "ipv4": _IPV4,
    "ipv6": "|".join(
        [f"({_H16}:){{7}}{_H16}", f"({_H16}:){{1,7}}:", f":(:{_H16}){{1,7}}", "::"]
        + [f"({_H16}:){{1,{7 - n}}}(:{_H16}){{1,{n}}}" for n in range(1, 7)]
    ),
    "uuid": "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
    "hostname": _HOST,
    "email": rf"{_ATOM}(\.{_ATOM})*@{_HOST}",
    "uri": rf"[A-Za-z][A-Za-z0-9+\-.]*:(//)?[A-Za-z0-9._~]{_URI_CHAR}*{_URI_TAIL}",
    "json-pointer": _POINTER,
    "relative-json-pointer": rf"(0|[1-9][0-9]*)(#|{_POINTER})",
}
"""Formats of strings as patterns, so that both compilers enforce the same, and exactly. Nothing in them is escaped in
JSON. A `date` is one that the calendar has; hostnames have up to four labels, so that they are not too long."""

ANNOTATION_FORMATS = frozenset({"password", "binary", "byte", "int64", "float", "double"})
"""Formats that say how a value is shown or kept. The bounds of `int64` are beyond what llguidance does exactly."""


def standing(keyword: str) -> str:
    """Say what a keyword is to us: `enforced`, `definition`, `refused`, `annotation`, `unknown`."""
    if keyword in ENFORCED:
        return "enforced"
    if keyword in DEFINITIONS:
        return "definition"
    if keyword in REFUSED:
        return "refused"
    if keyword in ANNOTATIONS or keyword in HARMLESS or keyword.startswith("x-"):
        return "annotation"
    return "unknown"
