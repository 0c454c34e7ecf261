"""A request body as JSON, within bounds: the gateway reads it once, before any engine does."""

from typing import Any

import msgspec

from config.limits import RequestLimits
from deployments.errors import InvalidRequestError

_DECODER = msgspec.json.Decoder()


def parse_object(body: bytes, limits: RequestLimits) -> dict[str, Any]:
    """Parse a JSON object; stricter than Python's parser: no NaN, no lone surrogates, UTF-8 only.

    Raises InvalidRequestError when it is malformed, no object, nested too deep or made of too many values.
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
    if depth_over(parsed, limits.max_json_depth):
        raise too_deep("The request body", limits.max_json_depth)
    return parsed


def size_bytes(value: Any) -> int:
    """Return how long a parsed value is as JSON."""
    return len(msgspec.json.encode(value))


def depth_over(value: Any, limit: int) -> bool:
    """Say whether objects and lists lie in each other more than `limit` deep."""
    level = [value] if type(value) in (dict, list) else []
    for _ in range(limit):
        level = [inner for outer in level for inner in children(outer) if type(inner) in (dict, list)]
        if not level:
            return False
    return bool(level)


def children(value: Any) -> Any:
    return value.values() if type(value) is dict else value


def too_deep(what: str, limit: int, param: str | None = None) -> InvalidRequestError:
    return InvalidRequestError(f"{what} has objects or lists nested deeper than {limit}.", param)
