"""Constraints to measure with, different at each call: nobody has sent them before."""

import uuid
from collections.abc import Callable
from typing import Any

Body = dict[str, Any]


def two_properties(name: str) -> Body:
    return {
        "type": "object",
        "properties": {name: {"type": "string"}, "n": {"type": "integer"}},
        "required": [name, "n"],
    }


def formats(name: str) -> Body:
    properties = {
        name: {"type": "string", "format": "uuid"},
        "email": {"type": "string", "format": "email"},
        "title": {"type": "string", "maxLength": 60},
        "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        "state": {"enum": ["open", "closed", "waiting", "lost"]},
    }
    return {"type": "object", "properties": properties, "required": sorted(properties), "additionalProperties": False}


def nested(name: str, depth: int = 4, width: int = 5) -> Body:
    """Make objects within objects: 5 + 25 + 125 + 625 of them, 781 with the root."""
    leaf: Body = {"type": "object", "properties": {name: {"type": "integer"}}, "required": [name]}
    for _ in range(depth):
        fields = {f"{name[-3:]}_{number}": leaf for number in range(width)}
        leaf = {"type": "object", "properties": fields, "required": sorted(fields)}
    return leaf


def optional(name: str) -> Body:
    return {"type": "object", "properties": {f"{name}_{number}": {"type": "integer"} for number in range(3000)}}


CONSTRAINTS: dict[str, Callable[[str], Body]] = {
    "2 properties": lambda name: {"structured_outputs": {"json": two_properties(name)}},
    "formats, lengths, pattern, enum": lambda name: {"structured_outputs": {"json": formats(name)}},
    "nested, 781 objects": lambda name: {"structured_outputs": {"json": nested(name)}},
    "3,000 optional properties": lambda name: {"structured_outputs": {"json": optional(name)}},
    "(.{0,1000}){0,1000}": lambda name: {"structured_outputs": {"regex": f"({name[-4:]}.{{0,1000}}){{0,1000}}"}},
}


def fresh() -> str:
    """Return a name that no process has used: a prefix cache or a store of grammars must not know it."""
    return f"p{uuid.uuid4().hex[:12]}"


def many_properties() -> Body:
    names = [fresh() for _ in range(300)]
    return {"type": "object", "properties": {name: {"type": "integer"} for name in names}}


SLOW: dict[str, Callable[[], Body]] = {
    "nested schemas": lambda: {"structured_outputs": {"json": nested(fresh())}},
    "300 optional properties": lambda: {"structured_outputs": {"json": many_properties()}},
    "slow regexes": lambda: {"structured_outputs": {"regex": f"({fresh()}.{{0,300}}){{0,300}}"}},
}
"""Slow to compile; a bare server survives them."""
