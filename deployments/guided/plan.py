"""What to compile a constraint with: which compiler enforces all of it, and what that compiler is given.

Imports no compiler and runs none, so that what is refused here has cost nothing but reading.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any, Literal

from config.guided import ConstraintLimits
from deployments.errors import InvalidRequestError
from deployments.guided.documents import plan_schema
from deployments.guided.grammars import check_ebnf, check_lark, is_likely_lark
from deployments.guided.limits import check_text, read_json
from deployments.guided.patterns import Chars, Choice, Node, Repeat, Sequence
from deployments.guided.regexes import read_pattern
from deployments.guided.tags import TagReader
from deployments.guided_types import GrammarSpec

Form = Literal["json_schema", "ebnf", "lark", "regex", "structural_tag"]

FRAMES_PER_LEVEL = 12
"""Python frames that one level of nesting takes, at most; `max_depth` bounds the levels."""
ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
ONLY_EMPTY = "allows only the empty text"


@dataclass(frozen=True, slots=True)
class Source:
    """What xgrammar compiles."""

    form: Form
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How a constraint may be enforced; a compiler that would not enforce all of it is None."""

    xgrammar: Source | None
    llguidance: str | None
    """The grammar that llguidance is given, as text."""
    enforced: tuple[str, ...] = ()
    """JSON Schema keywords that every answer keeps to."""
    ignored: tuple[str, ...] = ()
    """JSON Schema keywords that were left out, which only happens without `strict`."""


def plan(spec: GrammarSpec, limits: ConstraintLimits) -> Plan:
    """Find what is to be compiled; raises InvalidRequestError for what nobody can have."""
    check_text(spec.text, limits)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, before + FRAMES_PER_LEVEL * limits.max_depth))
    try:
        return _plan(spec, limits)
    except RecursionError:
        limit = f"max_depth is {limits.max_depth}"
        raise InvalidRequestError(f"The constraint is nested too deeply once it is merged: {limit}.") from None
    finally:
        sys.setrecursionlimit(before)


def _plan(spec: GrammarSpec, limits: ConstraintLimits) -> Plan:
    match spec.kind:
        case "json":
            return _json(spec, limits)
        case "json_object":
            schema = {"type": "object"}
            return Plan(Source("json_schema", json.dumps(schema)), _llguidance_json(schema, spec.any_whitespace))
        case "regex":
            return _regex(spec.text, limits)
        case "choice":
            return _choice(spec.text, limits)
        case "grammar":
            return _grammar(spec.text, limits)
        case "structural_tag":
            reader = TagReader(limits, spec.strict)
            text = json.dumps(reader.read(spec.text), ensure_ascii=False)
            return Plan(Source("structural_tag", text), None, tuple(reader.enforced), tuple(reader.ignored))


def _json(spec: GrammarSpec, limits: ConstraintLimits) -> Plan:
    found = plan_schema(read_json(spec.text, limits, "The JSON Schema"), limits, spec.strict)
    source = None if found.xgrammar is None else Source("json_schema", json.dumps(found.xgrammar, ensure_ascii=False))
    llguidance = None if found.llguidance is None else _llguidance_json(found.llguidance, spec.any_whitespace)
    return Plan(source, llguidance, found.enforced, found.ignored)


def _llguidance_json(schema: dict[str, Any], any_whitespace: bool) -> str:
    options = {"whitespace_flexible": any_whitespace}
    return _llguidance(json_schema={**schema, "x-guidance": options})


def _llguidance(**grammar: Any) -> str:
    return json.dumps({"grammars": [grammar]}, ensure_ascii=False)


def _regex(source: str, limits: ConstraintLimits) -> Plan:
    if not source:
        raise InvalidRequestError(f"An empty `regex` {ONLY_EMPTY}.")
    pattern = read_pattern(source, limits, "`regex`", is_search=False)
    if not _has_text(pattern.node):
        raise InvalidRequestError(f"`regex` {ONLY_EMPTY}.")
    text = pattern.text
    return Plan(Source("regex", text), _llguidance(lark_grammar=f"start: /{text}/"))


def _has_text(node: Node) -> bool:
    match node:
        case Chars(ranges):
            return bool(ranges)
        case Sequence(parts) | Choice(parts):
            return any(_has_text(part) for part in parts)
        case Repeat(part, _, most):
            return most != 0 and _has_text(part)
    return False


def _choice(text: str, limits: ConstraintLimits) -> Plan:
    choices = read_json(text, limits, "`choice`")
    if not isinstance(choices, list) or not choices or not all(isinstance(one, str) for one in choices):
        raise InvalidRequestError("`choice` must be a list of strings that is not empty.")
    if len(choices) > limits.max_choices:
        raise InvalidRequestError(f"`choice` has {len(choices)} texts: max_choices is {limits.max_choices}.")
    if "" in choices:
        raise InvalidRequestError("`choice` has an empty text, which answers cannot be told to be.")
    if len(set(choices)) < len(choices):
        raise InvalidRequestError("`choice` has a text twice.")
    quoted = [f'"{_escaped(one)}"' for one in choices]
    return Plan(Source("ebnf", "root ::= " + " | ".join(quoted)), _llguidance(lark_grammar=_lark_choice(choices)))


def _lark_choice(choices: list[str]) -> str:
    quoted = (json.dumps(one, ensure_ascii=False).replace("\x7f", r"\u007f") for one in choices)
    return "start: " + " | ".join(quoted)


def _escaped(text: str) -> str:
    """Write a text as it stands between the quotes of EBNF."""
    return "".join(
        ESCAPES.get(char) or (f"\\u{ord(char):04x}" if char < " " or char == "\x7f" else char) for char in text
    )


def _grammar(text: str, limits: ConstraintLimits) -> Plan:
    if not text.strip():
        raise InvalidRequestError("The grammar is empty.")
    if is_likely_lark(text):
        check_lark(text, limits)
        return Plan(Source("lark", text), _llguidance(lark_grammar=text))
    check_ebnf(text, limits)
    return Plan(Source("ebnf", text), None)
