"""A request body as JSON, within bounds: the gateway reads it once, before any engine does."""

from collections.abc import Iterator
from typing import Any

import msgspec

from config.limits import RequestLimits
from deployments.errors import InvalidRequestError

_DECODER = msgspec.json.Decoder()


def parse_object(body: bytes, limits: RequestLimits) -> dict[str, Any]:
    """Parse a JSON object; stricter than Python's parser: no NaN, no lone surrogates, UTF-8 only.

    Raises InvalidRequestError when it is malformed, no object, nested too deep or made of too much.
    """
    values = body.count(b",") + body.count(b"[") + body.count(b"{")
    if values > limits.max_json_values:
        raise InvalidRequestError(f"The request body has more than {limits.max_json_values} values.")
    try:
        parsed = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"The request body must be a JSON object: {error}") from error
    except RecursionError as error:
        raise too_deep("The request body", limits.max_json_depth) from error
    if not isinstance(parsed, dict):
        raise InvalidRequestError("The request body must be a JSON object.")
    check_shape(parsed, limits)
    return parsed


def check_shape(body: dict[str, Any], limits: RequestLimits) -> None:
    count = 0
    for depth, level in enumerate(levels(body), 1):
        count += len(level)
        if depth > limits.max_json_depth:
            raise too_deep("The request body", limits.max_json_depth)
        if count > limits.max_json_objects:
            raise InvalidRequestError(f"The request body has more than {limits.max_json_objects} objects and lists.")


def parsed_text(name: str, text: str) -> Any:
    """Parse JSON that a text of field `name` holds; None when it is none, for the engine to refuse.

    Raises InvalidRequestError when it is nested too deep for any parser.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise InvalidRequestError(f"The JSON in `{name}` is nested too deep.", name) from error
    except msgspec.MsgspecError:
        return None


def to_json(value: Any) -> bytes:
    """Write a parsed value as JSON again."""
    return msgspec.json.encode(value)


def size_bytes(value: Any) -> int:
    """Return how long a parsed value is as JSON."""
    return len(to_json(value))


def depth_over(value: Any, limit: int) -> bool:
    """Say whether objects and lists lie in each other more than `limit` deep."""
    return any(depth > limit for depth, _ in enumerate(levels(value), 1))


def levels(value: Any) -> Iterator[list[Any]]:
    """Give a value's objects and lists: the value itself, then those inside it, then those inside these."""
    level = [value] if type(value) in (dict, list) else []
    while level:
        yield level
        level = [inner for outer in level for inner in children(outer) if type(inner) in (dict, list)]


def children(value: Any) -> Any:
    return value.values() if type(value) is dict else value


def too_deep(what: str, limit: int, param: str | None = None) -> InvalidRequestError:
    return InvalidRequestError(f"{what} has objects or lists nested deeper than {limit}.", param)
