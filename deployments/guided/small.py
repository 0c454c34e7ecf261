"""Constraints so small that any engine may compile them itself, in no time and with nothing to go wrong."""

import json
import re
from typing import Any

from deployments.guided.references import key_of
from deployments.guided_types import GrammarSpec

MAX_BYTES = 1024
MAX_DEPTH = 6
MAX_ENUM = 32
HARMLESS = frozenset(
    {"type", "properties", "required", "additionalProperties", "items", "enum", "const", "title", "description"}
)
CHOICES = re.compile(r'root ::= ("[^"\\\x00-\x1f]{1,128}"( \| "[^"\\\x00-\x1f]{1,128}")*)')


def is_small(spec: GrammarSpec) -> bool:
    """Say whether a constraint is so simple that every compiler does it at once."""
    if not spec.any_whitespace and spec.kind != "choice":
        return False  # an engine core knows one way of writing JSON, and this request wants the other
    if spec.kind == "choice":
        return len(spec.text) <= MAX_BYTES and is_small_choice(parsed(spec.text))
    return spec.kind == "json_object" or (spec.kind == "json" and is_small_schema(spec.text))


def is_small_schema(text: str) -> bool:
    """Say whether a JSON Schema has only plain objects, lists and values, and few of them."""
    return len(text) <= MAX_BYTES and _is_plain(parsed(text), 0)


def is_small_grammar(text: str) -> bool:
    """Say whether a grammar is a choice between a few texts, as vLLM writes one."""
    return len(text) <= MAX_BYTES and CHOICES.fullmatch(text) is not None and key_of(text) is None


def is_small_choice(choices: Any) -> bool:
    texts = isinstance(choices, list) and bool(choices) and all(isinstance(one, str) for one in choices)
    return texts and is_small_grammar("root ::= " + " | ".join(f'"{one}"' for one in choices))


def parsed(text: str) -> Any:
    """Parse JSON; None when it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_plain(schema: Any, depth: int) -> bool:
    if not isinstance(schema, dict) or depth > MAX_DEPTH or not schema.keys() <= HARMLESS:
        return False
    inner = schema.get("properties", {})
    if not isinstance(inner, dict) or not isinstance(schema.get("enum", []), list):
        return False
    if len(schema.get("enum", [])) > MAX_ENUM or not isinstance(schema.get("additionalProperties", False), bool):
        return False
    below = [*inner.values(), *([schema["items"]] if "items" in schema else [])]
    return all(_is_plain(one, depth + 1) for one in below)
