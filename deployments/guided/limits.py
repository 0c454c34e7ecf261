"""What is looked at before anything else: size, depth, and whether JSON means the same to all who read it."""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from config.guided import ConstraintLimits
from deployments.errors import InvalidRequestError

_STRINGS_AND_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
MAX_EXACT = 2**53
"""Larger integers are not exact as 64-bit floats, which compilers read."""
MAX_NUMBER_CHARS = 400
"""Longer numbers are no 64-bit float, nor anything else that JSON Schemas are about."""


def check_text(text: str, limits: ConstraintLimits) -> None:
    """Raise InvalidRequestError for a text that is too long, or is not all characters."""
    try:
        num_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequestError("The constraint has half a character (a lone surrogate).") from None
    if num_bytes > limits.max_bytes:
        raise InvalidRequestError(f"The constraint has {num_bytes} bytes: max_bytes is {limits.max_bytes}.")
    if "\0" in text:
        raise InvalidRequestError("The constraint has a NUL character.")


def read_json(text: str, limits: ConstraintLimits, what: str) -> Any:
    """Parse JSON; raises InvalidRequestError, also for what parsers read differently: names twice, NaN, infinity."""
    _check_depth(text, limits)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_int, parse_float=_float
        )
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{what} is no JSON: {error}.") from None
    check_strings(value)
    return value


def _check_depth(text: str, limits: ConstraintLimits) -> None:
    depth = 0
    for found in _STRINGS_AND_BRACKETS.finditer(text):
        if found[0] in "[{":
            depth += 1
            if depth > limits.max_depth:
                limit = f"max_depth is {limits.max_depth}"
                raise InvalidRequestError(f"The constraint has too many objects and lists inside each other: {limit}.")
        elif found[0] in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"an object has {twice[:100]!r} twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _int(digits: str) -> int:
    if len(digits) > MAX_NUMBER_CHARS:
        raise ValueError("a number has too many digits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:100]} is too large a number")
    return number


def values_in(value: Any) -> Iterator[Any]:
    """Yield a JSON value and all that is in it; names of objects too."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        yield found
        if isinstance(found, dict):
            waiting += found
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def check_strings(value: Any) -> None:
    """Raise InvalidRequestError for strings with NUL or half characters, which JSON can write with escapes."""
    for text in values_in(value):
        if isinstance(text, str) and "\0" in text:
            raise InvalidRequestError("The constraint has a NUL character.")
        if isinstance(text, str) and any("\ud800" <= char <= "\udfff" for char in text):
            raise InvalidRequestError("The constraint has half a character (a lone surrogate).")


def check_schema_size(schema: Any, limits: ConstraintLimits) -> None:
    """Raise InvalidRequestError for a schema with too many subschemas, properties, or values of an enum."""
    nodes = properties = 0
    for value in values_in(schema):
        if not isinstance(value, dict):
            continue
        nodes += 1
        inner = value.get("properties")
        properties += len(inner) if isinstance(inner, dict) else 0
        for name in ("enum", "anyOf", "oneOf"):
            values = value.get(name)
            if isinstance(values, list) and len(values) > limits.max_choices:
                raise InvalidRequestError(f"`{name}` has {len(values)} values: max_choices is {limits.max_choices}.")
    if properties > limits.max_properties:
        raise InvalidRequestError(f"The schema has {properties} properties: max_properties is {limits.max_properties}.")
    if nodes > limits.max_schema_nodes:
        raise InvalidRequestError(f"The schema has {nodes} parts: max_schema_nodes is {limits.max_schema_nodes}.")
