"""Faults of one schema that are seen without its surroundings."""

from typing import Any

from deployments.errors import InvalidRequestError
from deployments.guided.keywords import DEFINITIONS, ENFORCED, PAIRS


def unenforced(keyword: str, pointer: str, reason: str) -> str:
    return f"`{keyword}` at {pointer[:300] or '/'} {reason}; remove it, or set `strict` to false."


def check_values(schema: dict[str, Any], pointer: str) -> None:
    """Raise InvalidRequestError for keywords with values that they cannot have, or that contradict each other."""
    place = pointer[:300] or "/"
    for keyword, value in schema.items():
        is_valid, what = ENFORCED.get(keyword) or DEFINITIONS.get(keyword) or (_anything, "")
        if not is_valid(value):
            raise InvalidRequestError(f"`{keyword}` at {place} must be {what}.")
    for least, most in PAIRS:
        if least in schema and most in schema and schema[least] > schema[most]:
            raise InvalidRequestError(f"`{least}` at {place} is larger than `{most}`: nothing satisfies both.")
    _check_bounds(schema, place)
    identifier = schema.get("$id")
    if pointer and isinstance(identifier, str) and not identifier.startswith("#"):
        raise InvalidRequestError(f"`$id` at {place} changes what `$ref`s mean, which is not supported.")


def _anything(value: Any) -> bool:
    return True


def _check_bounds(schema: dict[str, Any], place: str) -> None:
    low = max((schema[name] for name in ("minimum", "exclusiveMinimum") if name in schema), default=None)
    high = min((schema[name] for name in ("maximum", "exclusiveMaximum") if name in schema), default=None)
    if low is None or high is None:
        return
    is_open = schema.get("exclusiveMinimum") == low or schema.get("exclusiveMaximum") == high
    if low > high or (low == high and is_open):
        raise InvalidRequestError(f"`minimum` at {place} is larger than `maximum`: no number satisfies both.")
