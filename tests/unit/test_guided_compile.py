"""What one compiler makes of a constraint, with real compilers and the demo model's vocabulary."""

import functools
import time
from typing import Any

import pytest
import xgrammar

from config.guided import CompileLimits, ConstraintLimits
from deployments.guided import compile as compiling
from deployments.guided.artifact import unpack
from deployments.guided.compile import serialize, try_llguidance, try_xgrammar
from deployments.guided.compilers import Bitmask, LlguidanceMatcher, LoadedVocabulary, MatcherError, XgrammarMatcher
from deployments.guided.probe import (
    WALKS,
    Choice,
    SlowMasksError,
    UnsuitableError,
    any_token,
    longest_token,
    probe,
    same_masks,
    same_token,
    shortest_token,
    walk,
)
from deployments.guided.wire import Entered, Invalid, Made, Planned, Report, Unfit
from deployments.guided_types import GrammarSpec
from tests.vocabularies import PERSON, bytes_vocabulary, demo_vocabulary, optional_properties

LIMITS = CompileLimits(max_mask_ms=10_000, max_walk_ms=100_000)  # a busy machine is no reason to refuse
LARK = 'start: "a" start | "b"'


@functools.cache
def vocabulary() -> LoadedVocabulary:
    return LoadedVocabulary(demo_vocabulary())


def compiled(ebnf: str) -> Any:
    compiler = xgrammar.GrammarCompiler(vocabulary().tokenizer_info, max_threads=1, cache_enabled=False)
    return compiler.compile_grammar(ebnf)


def reports(spec: GrammarSpec, limits: CompileLimits = LIMITS) -> list[Report]:
    """Return what a job that tries xgrammar says."""
    said: list[Report] = []
    try_xgrammar(spec, vocabulary(), ConstraintLimits(), limits, said.append)
    return said


def llguidance_says(grammar: str, limits: CompileLimits = LIMITS) -> Report:
    said: list[Report] = []
    try_llguidance(grammar, vocabulary(), limits, said.append)
    return said[-1]


@pytest.mark.parametrize(
    "spec",
    [
        PERSON,
        GrammarSpec("json_object", ""),
        GrammarSpec("regex", "[a-z]{1,3}"),
        GrammarSpec("choice", '["yes", "no"]'),
        GrammarSpec("grammar", 'root ::= "a" root | "b"'),
        GrammarSpec("grammar", LARK),
    ],
)
def test_a_constraint_of_each_kind_is_made(spec: GrammarSpec) -> None:
    planned, *stages, made = reports(spec)
    assert isinstance(planned, Planned)
    assert planned.has_xgrammar
    assert stages == [Entered("compiling"), Entered("trying out"), Entered("packing")]
    assert isinstance(made, Made)
    assert made.memory_bytes > 0
    unpacked = unpack(made.artifact)
    assert unpacked.compiler == "xgrammar"
    read = xgrammar.CompiledGrammar.deserialize_json(unpacked.text, vocabulary().tokenizer_info)
    assert read.memory_size_bytes > 0


def test_whitespace_is_allowed_or_not_as_vllm_has_it() -> None:
    schema = PERSON.text
    for any_whitespace in (True, False):
        made = reports(GrammarSpec("json", schema, any_whitespace))[-1]
        assert isinstance(made, Made)
        read = xgrammar.CompiledGrammar.deserialize_json(unpack(made.artifact).text, vocabulary().tokenizer_info)
        matcher = xgrammar.GrammarMatcher(read)
        assert matcher.accept_string('{\n "name": "x"}') is any_whitespace


def test_what_nobody_can_have_is_invalid() -> None:
    (said,) = reports(GrammarSpec("json", "{} " * ConstraintLimits().max_bytes))
    assert isinstance(said, Invalid)
    assert said.message


def test_an_artifact_that_is_too_large_is_unfit_and_says_the_limit() -> None:
    said = reports(optional_properties(10), LIMITS.model_copy(update={"max_artifact_bytes": 1024}))[-1]
    assert isinstance(said, Unfit)
    assert "more than 1024 (compilation.max_artifact_bytes)" in said.reason
    assert not said.is_costly


@pytest.mark.parametrize("limit", ["max_mask_ms", "max_walk_ms"])
def test_slow_masks_are_unfit_and_say_the_limit(limit: str) -> None:
    limits = LIMITS.model_copy(update={limit: 1e-6})
    for said in (reports(PERSON, limits)[-1], llguidance_says(LARK, limits)):
        assert isinstance(said, Unfit)
        assert f"more than 1e-06 ms (compilation.{limit})" in said.reason


class Disturbed(XgrammarMatcher):
    """A matcher on a machine that does something else meanwhile."""

    def fill(self, bitmask: Bitmask) -> None:
        begin_s = time.thread_time()
        while time.thread_time() - begin_s < 1.1:
            pass
        super().fill(bitmask)


def test_a_disturbance_is_forgiven_when_it_does_not_come_again() -> None:
    grammar = compiled('root ::= "a"*')
    matchers = iter([Disturbed(grammar), *(XgrammarMatcher(grammar) for _ in WALKS)])
    probe(lambda: next(matchers), vocabulary(), LIMITS.model_copy(update={"max_mask_ms": 1000}))
    assert next(matchers, None) is None
    with pytest.raises(SlowMasksError):
        probe(lambda: Disturbed(grammar), vocabulary(), LIMITS.model_copy(update={"max_mask_ms": 1000}))


@pytest.mark.parametrize("ebnf", ['root ::= "a" []', 'root ::= "a" | "b" []'])
def test_a_dead_end_is_unfit(ebnf: str) -> None:
    with pytest.raises(UnsuitableError, match="no token of this model can complete"):
        probe(lambda: XgrammarMatcher(compiled(ebnf)), vocabulary(), LIMITS)


def tokens_of(ebnf: str, choose: Choice, num_tokens: int = 5, seed: int = 0) -> list[bytes]:
    decoded = vocabulary().tokenizer_info.decoded_vocab
    steps = walk(XgrammarMatcher(compiled(ebnf)), vocabulary(), num_tokens, choose, seed)
    return [decoded[step.token_id] for step in steps if step.token_id is not None]


def test_walks_prefer_what_they_say() -> None:
    assert set(map(len, tokens_of("root ::= [a-z]*", shortest_token))) == {1}
    lengths = list(map(len, tokens_of("root ::= [a-z]*", longest_token)))
    assert len(set(lengths)) == 1
    assert lengths[0] > 5
    assert len(set(tokens_of("root ::= [a-z]*", same_token))) == 1
    assert tokens_of('root ::= "x" "y"*', same_token)[-1] == b"y"


def test_walks_are_the_same_each_time_and_differ_by_seed() -> None:
    first = tokens_of("root ::= [a-z]*", any_token)
    assert tokens_of("root ::= [a-z]*", any_token) == first
    assert tokens_of("root ::= [a-z]*", any_token, seed=1) != first


def test_a_walk_ends_where_the_answer_must() -> None:
    assert b"".join(tokens_of('root ::= "abc"', any_token)) == b"abc"


def test_other_masks_are_found() -> None:
    def same(first: str, second: str) -> bool:
        return same_masks(
            lambda: XgrammarMatcher(compiled(first)), lambda: XgrammarMatcher(compiled(second)), vocabulary(), 16
        )

    assert same("root ::= [a-z]*", 'root ::= rest\nrest ::= [a-z] rest | ""')
    assert not same("root ::= [a-z]*", "root ::= [a-y]*")
    assert not same("root ::= [a-z]{0,9}", "root ::= [a-z]{0,8}")


def test_what_pruning_would_change_is_not_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    another = compiled("root ::= [a-y]*").serialize_json()
    monkeypatch.setattr(compiling, "prune", lambda _: another)
    grammar = compiled("root ::= [a-z]*")
    assert serialize(grammar, vocabulary(), LIMITS)[0] == grammar.serialize_json()


def test_what_cannot_be_pruned_is_not_pruned(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(serialized: str) -> str:
        raise ValueError("another format")

    monkeypatch.setattr(compiling, "prune", refuse)
    grammar = compiled("root ::= [a-z]*")
    assert serialize(grammar, vocabulary(), LIMITS)[0] == grammar.serialize_json()


def test_a_matcher_that_gives_up_is_an_error_and_no_end() -> None:
    said = llguidance_says("start: /(.{0,1000}){0,1000}/")
    assert isinstance(said, Unfit)
    assert "too many expressions" in said.reason
    assert "<state>" not in said.reason


def test_llguidance_makes_the_grammar_itself_the_artifact() -> None:
    said = llguidance_says(LARK)
    assert isinstance(said, Made)
    assert unpack(said.artifact).text == LARK
    assert unpack(said.artifact).compiler == "llguidance"


def test_llguidance_refuses_what_it_cannot_read() -> None:
    said = llguidance_says("start: (((")
    assert isinstance(said, Unfit)
    assert said.reason
    with pytest.raises(MatcherError):
        LlguidanceMatcher.build(vocabulary().ll_tokenizer, "start: (((")


def test_without_a_tokenizer_there_is_no_llguidance() -> None:
    said: list[Report] = []
    try_llguidance(LARK, LoadedVocabulary(bytes_vocabulary()), LIMITS, said.append)
    assert said == [Unfit("it cannot read this model's tokenizer")]
