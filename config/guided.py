"""Typed settings of guided decoding: of the application `guided`, and of engines that use it."""

from typing import Any, Literal

from pydantic import Field

from config.settings import ApplicationSettings, Settings


class ConstraintLimits(Settings):
    """What a constraint may be, checked before anything compiles it."""

    max_bytes: int = Field(default=512 * 1024, ge=16, le=2**26)
    """Longest specification."""
    max_depth: int = Field(default=64, ge=1, le=500)
    """Most JSON objects and lists, or groups of a regular expression or grammar, inside each other."""
    max_schema_nodes: int = Field(default=20_000, ge=1, le=10**7)
    """Most subschemas of a JSON Schema, `$ref`s followed once."""
    max_properties: int = Field(default=5_000, ge=1, le=10**6)
    """Most properties of a JSON Schema, all objects together."""
    max_choices: int = Field(default=10_000, ge=1, le=10**6)
    """Most texts of a choice, values of an enum, or alternatives of a regular expression."""
    max_repetition: int = Field(default=10_000, ge=1, le=10**7)
    """Largest product of counted repetitions inside each other, such as 6 for `(a{2}){3}`; `maxLength`, `maxItems` and
    the like count as repetitions."""
    max_regex_bytes: int = Field(default=8192, ge=1, le=2**20)
    """Longest regular expression, `pattern`s of JSON Schemas too."""
    max_rules: int = Field(default=5_000, ge=1, le=10**6)
    """Most rules of a grammar."""


class CompileLimits(Settings):
    """What one compilation may use. It runs in a process of its own, which is killed when it uses more."""

    timeout_s: float = Field(default=5.0, gt=0, le=600)
    """Wall-clock time of a compilation by each of the two compilers, trying out included, in seconds."""
    patience_s: float = Field(default=0.3, ge=0, le=600)
    """How long xgrammar has for itself; then llguidance is tried beside it, and what is ready first counts. Masks of
    xgrammar take the engine less time, llguidance needs hardly any to compile."""
    memory_bytes: int = Field(default=2 * 2**30, ge=2**26, le=2**40)
    """Address space that a compilation may add to that of the process it is forked from."""
    max_artifact_bytes: int = Field(default=32 * 2**20, ge=1024, le=2**31)
    """Largest compiled form that engines are sent, uncompressed; above, llguidance builds it in the engine."""
    probe_tokens: int = Field(default=64, ge=1, le=10_000)
    """How many tokens the constraint is tried out for, on each of several random ways through it."""
    max_mask_ms: float = Field(default=20.0, gt=0, le=10_000)
    """CPU time that the mask of one token may take: the engine waits for it, and with it everybody's tokens."""
    max_walk_ms: float = Field(default=1000.0, gt=0, le=100_000)
    """CPU time that all masks of the trial may take together."""


class GuidedSettings(ApplicationSettings):
    """Arguments of the application `guided`: the pool that compiles constraints."""

    num_actors: int = Field(default=2, ge=1, le=1024)
    """Compilations that run at once, each in an actor of its own, of one GuidedCompiler replica."""
    actor_options: dict[str, Any] = {"num_cpus": 0.1}
    """Ray's options of these actors: what they reserve, and where they may be."""
    max_waiting: int = Field(default=64, ge=1, le=10**6)
    """Constraints that may wait for an actor; more are answered 429."""
    wait_timeout_s: float = Field(default=20.0, gt=0, le=3600)
    """How long a constraint may wait for an actor before its request is answered 503, in seconds."""
    cache_bytes: int = Field(default=512 * 2**20, ge=2**20, le=2**40)
    """Verdicts that are kept, good and bad, artifacts included."""
    max_vocabularies: int = Field(default=8, ge=1, le=1024)
    """Models whose vocabularies are kept in memory; the one that was not used for the longest time goes first."""
    quarantine_s: float = Field(default=600.0, ge=0, le=86400)
    """How long a constraint that crashed its compiler, or took too long, is refused without another try."""
    max_quarantined: int = Field(default=10_000, ge=1, le=10**7)
    """How many of them are remembered."""
    constraints: ConstraintLimits = ConstraintLimits()
    compilation: CompileLimits = CompileLimits()


class Constraint(Settings):
    """A constraint as `POST /v1/grammars` takes it."""

    kind: Literal["json", "regex", "choice", "grammar", "structural_tag"]
    spec: dict[str, Any] | list[str] | str
    """A JSON Schema, a regular expression, a list of texts, EBNF or Lark, a structural tag."""


class EngineGuidedSettings(Settings):
    """How a model's engines have constraints compiled."""

    compiled_by: Literal["pool", "engine"] = "pool"
    """`pool`: the application `guided`. `engine`: vLLM itself, in the process that makes everybody's tokens."""
    strict: bool = True
    """Have the engine core refuse to compile anything but trivially small constraints."""
    timeout_s: float = Field(default=7.0, gt=0, le=600)
    """How long a request waits for its constraint to be compiled, then 503. Less than `deadlines.heartbeat_s`, or
    streams that wait will have begun when their constraint is refused."""
    small_timeout_s: float = Field(default=1.0, gt=0, le=600)
    """The same for a trivially small one, which the engine then compiles itself."""
    pool_retry_s: float = Field(default=5.0, ge=0, le=3600)
    """How long after that it compiles all small ones without asking the pool."""
    store_bytes: int = Field(default=256 * 2**20, ge=2**20, le=2**40)
    """Compiled constraints that the engine core keeps in memory. Those that requests use stay."""
    overlap_after_s: float = Field(default=0.02, ge=0, le=60)
    """When a constraint takes longer than this, the prompt is computed meanwhile."""
    precompile: tuple[Constraint, ...] = ()
    """Constraints to have ready before the first request. One that is refused fails the deployment."""
