"""Whole texts against compiled constraints, with the demo model's vocabulary and the real compilers."""

import functools
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import xgrammar

from config.guided import ConstraintLimits
from deployments.guided.compile import compile_source
from deployments.guided.compilers import LlguidanceMatcher, LoadedVocabulary, Matcher, MatcherError, XgrammarMatcher
from deployments.guided.plan import Plan, Source, plan
from deployments.guided_types import GrammarSpec
from tests.vocabularies import demo_vocabulary

LIMITS = ConstraintLimits()
MAX_TOKENS = 300

Make = Callable[[], Matcher]
"""Makes a matcher at its beginning."""


@functools.cache
def vocabulary() -> LoadedVocabulary:
    return LoadedVocabulary(demo_vocabulary())


@functools.cache
def _pieces() -> list[bytes]:
    return [bytes(piece) for piece in vocabulary().tokenizer_info.decoded_vocab]


def with_xgrammar(source: Source, any_whitespace: bool = True) -> Make:
    """Compile; raises RuntimeError, or ValueError."""
    compiler = xgrammar.GrammarCompiler(vocabulary().tokenizer_info, max_threads=1, cache_enabled=False)
    compiled = compile_source(compiler, source, any_whitespace)
    return lambda: XgrammarMatcher(compiled)


def with_llguidance(grammar: str) -> Make:
    """Compile; raises MatcherError."""
    return LlguidanceMatcher.build(vocabulary().ll_tokenizer, grammar).copy


def with_all(spec: GrammarSpec) -> tuple[Plan, dict[str, Make]]:
    """Plan a constraint, and have each compiler that enforces it compile it."""
    planned = plan(spec, LIMITS)
    made: dict[str, Make] = {}
    if planned.xgrammar is not None:
        made["xgrammar"] = with_xgrammar(planned.xgrammar, spec.any_whitespace)
    if planned.llguidance is not None:
        made["llguidance"] = with_llguidance(planned.llguidance)
    return planned, made


def schema(value: Any, **fields: bool) -> GrammarSpec:
    return GrammarSpec("json", json.dumps(value), **fields)


def allowed(matcher: Matcher) -> set[int]:
    """Return the tokens that may come next; raises MatcherError."""
    bitmask = vocabulary().bitmask()
    matcher.fill(bitmask)
    return set(np.flatnonzero(np.unpackbits(bitmask.view(np.uint8).ravel(), bitorder="little")).tolist())


def takes(make: Make, text: str) -> bool:
    """Say whether a text is a complete answer."""
    matcher = make()
    try:
        # Not by the masks: llguidance allows only the tokenizer's own way to write what can only go on like this.
        if not all(matcher.accept(token) for token in vocabulary().ll_tokenizer.tokenize_bytes(text.encode())):
            return False
        return bool(allowed(matcher) & set(vocabulary().stop_token_ids))
    except MatcherError:
        return False


def answer(make: Make, seed: int) -> bytes | None:
    """Write an answer at random; None when it does not end. Raises MatcherError, or ValueError at a dead end."""
    draw, matcher, text = random.Random(seed), make(), b""
    for count in range(MAX_TOKENS):
        tokens = allowed(matcher)
        rest = sorted(tokens - set(vocabulary().stop_token_ids))
        if not tokens:
            raise ValueError(f"nothing may follow {text!r}")
        if len(rest) < len(tokens) and (not rest or draw.random() < count / MAX_TOKENS + 0.2):
            return text
        closing = [token for token in rest if _pieces()[token][:1] in b'"}],:0123456789']
        token = draw.choice(closing if closing and draw.random() < count / MAX_TOKENS + 0.3 else rest)
        if not matcher.accept(token):
            raise ValueError(f"{token} was allowed after {text!r}, then refused")
        text += _pieces()[token]
    return None
