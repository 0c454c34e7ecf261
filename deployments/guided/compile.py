"""Try one compiler on a constraint: the work of a process that was forked for it, and may be killed at any moment."""

import json
import re
from collections.abc import Callable
from typing import Any

from config.guided import CompileLimits, ConstraintLimits
from deployments.errors import InvalidRequestError
from deployments.guided.artifact import pack, prune
from deployments.guided.compilers import (
    LlguidanceMatcher,
    LoadedVocabulary,
    MatcherError,
    XgrammarMatcher,
)
from deployments.guided.memory import held_bytes
from deployments.guided.plan import Source, plan
from deployments.guided.probe import UnsuitableError, probe, same_masks
from deployments.guided.wire import Entered, Invalid, Made, Planned, Report, Unfit
from deployments.guided_types import GrammarSpec

OUT_OF_MEMORY = "std::bad_alloc"
STATE = "\n<state>"
"""Where llguidance's messages end for those who do not work on llguidance."""
MAX_REASON_CHARS = 500

# xgrammar puts the time and its own file before what it says.
_WHERE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+: ")

Tell = Callable[[Report], None]


def try_xgrammar(
    spec: GrammarSpec, vocabulary: LoadedVocabulary, constraints: ConstraintLimits, limits: CompileLimits, tell: Tell
) -> None:
    """Find out what there is to compile; compile it with xgrammar if that can."""
    try:
        planned = plan(spec, constraints)
    except InvalidRequestError as error:
        tell(Invalid(error.message))
        return
    tell(Planned(planned.xgrammar is not None, planned.llguidance, planned.enforced, planned.ignored))
    if planned.xgrammar is not None:
        source = planned.xgrammar
        _try(lambda: _with_xgrammar(source, spec, vocabulary, limits, tell), limits, tell)


def try_llguidance(grammar: str, vocabulary: LoadedVocabulary, limits: CompileLimits, tell: Tell) -> None:
    """See whether engines may have llguidance build a grammar."""
    _try(lambda: _with_llguidance(grammar, vocabulary, limits, tell), limits, tell)


def _try(make: Callable[[], Made], limits: CompileLimits, tell: Tell) -> None:
    """Tell what comes of it."""
    too_much = Unfit(f"it needs more than {limits.memory_bytes} bytes of memory (compilation.memory_bytes)", True)
    try:
        tell(make())
    except MemoryError:
        tell(too_much)
    except UnsuitableError as error:
        tell(Unfit(str(error)))
    except (MatcherError, RuntimeError, ValueError) as error:
        text = _WHERE.sub("", str(error)).partition(STATE)[0].strip()
        tell(too_much if OUT_OF_MEMORY in text else Unfit(text[:MAX_REASON_CHARS]))


def _with_xgrammar(
    source: Source, spec: GrammarSpec, vocabulary: LoadedVocabulary, limits: CompileLimits, tell: Tell
) -> Made:
    import xgrammar

    tell(Entered("compiling"))
    compiler = xgrammar.GrammarCompiler(vocabulary.tokenizer_info, max_threads=1, cache_enabled=False)
    compiled = compile_source(compiler, source, spec.any_whitespace)
    tell(Entered("trying out"))
    probe(lambda: XgrammarMatcher(compiled), vocabulary, limits)
    tell(Entered("packing"))
    text, memory_bytes = serialize(compiled, vocabulary, limits)
    return Made(pack("xgrammar", text), memory_bytes)


def _with_llguidance(grammar: str, vocabulary: LoadedVocabulary, limits: CompileLimits, tell: Tell) -> Made:
    if vocabulary.ll_tokenizer is None:
        raise UnsuitableError("it cannot read this model's tokenizer")
    tell(Entered("compiling"))
    before_bytes = held_bytes()
    matcher = LlguidanceMatcher.build(vocabulary.ll_tokenizer, grammar)
    tell(Entered("trying out"))
    probe(matcher.copy, vocabulary, limits)
    tell(Entered("packing"))
    _check_size(grammar, limits)
    return Made(pack("llguidance", grammar), max(0, held_bytes() - before_bytes))


def compile_source(compiler: Any, source: Source, any_whitespace: bool) -> Any:
    """Compile as vLLM's XgrammarBackend does; raises RuntimeError, or ValueError."""
    separators = None if any_whitespace else (",", ":")
    match source.form:
        case "json_schema":
            return compiler.compile_json_schema(source.text, any_whitespace=any_whitespace, separators=separators)
        case "regex":
            return compiler.compile_regex(source.text)
        case "lark":
            return compiler.compile_lark(source.text)
        case "ebnf":
            return compiler.compile_grammar(source.text)
        case "structural_tag":
            return _compile_structural_tag(compiler, source.text)


def _compile_structural_tag(compiler: Any, text: str) -> Any:
    tag = json.loads(text)
    if "structures" not in tag:
        return compiler.compile_structural_tag(text)
    from xgrammar import StructuralTagItem as Item

    items = [Item(begin=s["begin"], schema=json.dumps(s["schema"]), end=s["end"]) for s in tag["structures"]]
    return compiler.compile_structural_tag(items, tag["triggers"])


def serialize(compiled: Any, vocabulary: LoadedVocabulary, limits: CompileLimits) -> tuple[str, int]:
    """Return a compiled grammar as text, and the bytes that it takes once it is read.

    Pruned, if that is proven to allow the same tokens. Raises UnsuitableError when it is too large.
    """
    full = compiled.serialize_json()
    pruned = _prune(full)
    if pruned is not None:
        _check_size(pruned, limits)  # it is the smaller one
        read, memory_bytes = _read(pruned, vocabulary)
        makes = (lambda: XgrammarMatcher(compiled)), (lambda: XgrammarMatcher(read))
        if same_masks(*makes, vocabulary, limits.probe_tokens):
            return pruned, memory_bytes
    _check_size(full, limits)
    return full, _read(full, vocabulary)[1]


def _read(text: str, vocabulary: LoadedVocabulary) -> tuple[Any, int]:
    """Return a compiled grammar as the engine core will have it, and the bytes that it takes there."""
    import xgrammar

    before_bytes = held_bytes()  # xgrammar's own number leaves out what only a grammar that was read has
    read = xgrammar.CompiledGrammar.deserialize_json(text, vocabulary.tokenizer_info)
    return read, max(0, held_bytes() - before_bytes)


def _prune(serialized: str) -> str | None:
    try:
        return prune(serialized)
    except ValueError:
        return None


def _check_size(text: str, limits: CompileLimits) -> None:
    num_bytes = len(text.encode())
    if num_bytes > limits.max_artifact_bytes:
        limit = f"{limits.max_artifact_bytes} (compilation.max_artifact_bytes)"
        raise UnsuitableError(f"its compiled form has {num_bytes} bytes, more than {limit}")
