"""Messages of guided decoding that cross handles and processes: plain, frozen, picklable."""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["json", "json_object", "regex", "choice", "grammar", "structural_tag"]
Compiler = Literal["xgrammar", "llguidance"]


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """A constraint as a request states it."""

    kind: Kind
    text: str
    """A JSON Schema, a regular expression, a JSON list of texts (`choice`), EBNF or Lark (`grammar`), the JSON of a
    structural tag; "" for `json_object`."""
    any_whitespace: bool = True
    """Let JSON have whitespace between its parts."""
    strict: bool = True
    """Refuse keywords that change what is valid and that no compiler enforces; else they are left out, and named."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What compilers must know of a model's tokens. Comes from an engine; the pool loads no model."""

    fingerprint: str
    """Digest of everything below."""
    tokenizer_info: str = field(repr=False)
    """xgrammar's TokenizerInfo, serialized by it: exactly the one the engine uses."""
    tokenizer_json: str = field(repr=False)
    """The Hugging Face `tokenizer.json` that llguidance reads; "" when the tokenizer has none: no llguidance then."""
    vocab_size: int
    """Token ids are smaller than this; bitmasks have so many bits."""
    eos_token_id: int


@dataclass(frozen=True, slots=True)
class Compiled:
    """A constraint that was compiled and tried out."""

    key: str
    compiler: Compiler
    artifact: bytes = field(repr=False)
    """Packed by `guided/artifact.py`; what the engine core loads."""
    compile_s: float
    memory_bytes: int
    """What the engine core will hold for it, about."""
    enforced: tuple[str, ...] = ()
    """JSON Schema keywords of the constraint that hold for every answer."""
    ignored: tuple[str, ...] = ()
    """Keywords that do not, which only happens without `strict`; annotations such as `title` are in neither."""
    is_cached: bool = False
    """Nobody had to compile for this request."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A constraint that nobody can have: a 400."""

    key: str
    message: str
    """For the client: what is wrong, and which limit it is over."""
    is_cached: bool = False
    is_costly: bool = False
    """Finding out crashed the compiler, or took as long as it may: not to be tried again soon, but not for ever bad."""


@dataclass(frozen=True, slots=True)
class VocabularyUnknown:
    """The compiler has not met this vocabulary yet: teach it, then ask again."""

    fingerprint: str
    compiler: str = ""
    """Name of the GuidedCompiler replica."""


Verdict = Compiled | Refused


@dataclass(frozen=True, slots=True)
class Receipt:
    """What holds for a constrained answer, and what it took; clients may ask for it."""

    key: str
    kind: str
    compiler: str
    """`xgrammar` or `llguidance`; `engine`: a small one, compiled where it is used while the pool could not be had."""
    compile_s: float
    size_bytes: int
    """Of what the engine was sent."""
    is_cached: bool
    """Nobody had to compile for this request."""
    enforced: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CompilerStats:
    """What one GuidedCompiler replica has done, and what it holds now."""

    num_compiled: int
    """Compilations begun since it started."""
    num_under_way: int
    num_cached: int
    """Verdicts kept."""
    cache_bytes: int
    num_quarantined: int


@dataclass(frozen=True, slots=True)
class EngineGrammars:
    """What one engine core has done with constraints."""

    num_held: int
    """Compiled constraints in its memory."""
    num_used: int
    """Requests that found theirs there, or failed to."""
    num_compiled: int
    """Constraints that it compiled itself: none, or small ones while the pool was away."""
