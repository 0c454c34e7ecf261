"""What to compile a constraint with: which compiler enforces all of it, and what that compiler is given."""

import json
from dataclasses import dataclass
from typing import Literal

from config.guided import ConstraintLimits
from deployments.errors import InvalidRequestError
from deployments.guided_types import GrammarSpec

Form = Literal["json_schema", "ebnf", "lark", "regex", "structural_tag"]


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
    if len(spec.text.encode()) > limits.max_bytes:
        raise InvalidRequestError("too long")
    match spec.kind:
        case "json":
            return Plan(Source("json_schema", spec.text), json.dumps({"grammars": [{"json_schema": json.loads(spec.text)}]}))
        case "json_object":
            return Plan(Source("json_schema", '{"type": "object"}'), None)
        case "regex":
            return Plan(Source("regex", spec.text), None)
        case "choice":
            return Plan(Source("ebnf", "root ::= " + " | ".join(json.dumps(one) for one in json.loads(spec.text))), None)
        case "grammar":
            return Plan(Source("ebnf" if "::=" in spec.text else "lark", spec.text), None)
        case "structural_tag":
            return Plan(Source("structural_tag", spec.text), None)
