"""Messages of token-level analysis: what the ingress asks the Tokenizer, and what that asks an engine.

Token ids are `array("i")`, log-probabilities (natural, in nats) `array("f")`: flat, small and quick to pickle.
"""

from array import array
from dataclasses import dataclass

from deployments.types import Usage

MessageText = tuple[str, str]
"""Role and content."""


@dataclass(frozen=True, slots=True)
class HighlightsQuestion:
    """What does the model think of each token of `updated_doc`, written as the answer to `prompt` and `doc`?"""

    doc: str
    prompt: str
    updated_doc: str
    num_alternatives: int
    in_windows: bool
    """Score documents beyond the model's window in overlapping parts, in place of refusing them."""
    in_utf16: bool
    """Count offsets in UTF-16 code units, as JavaScript does, in place of code points."""
    with_detail: bool
    is_stream: bool


@dataclass(frozen=True, slots=True)
class BranchesQuestion:
    """What are the most likely next tokens, and what follows each of them?"""

    messages: tuple[MessageText, ...]
    num_branches: int
    num_future_tokens: int
    only_texts: bool
    """Answer as `/api/next_token` does."""


@dataclass(frozen=True, slots=True)
class LogprobsQuestion:
    """How likely was each token of the rendered chat, and which were likelier?"""

    messages: tuple[MessageText, ...]
    num_alternatives: int


@dataclass(frozen=True, slots=True)
class RevisionsQuestion:
    """Which rewritings of a document does the model sample?"""

    doc: str
    prompt: str
    num_revisions: int
    max_tokens: int


Question = HighlightsQuestion | BranchesQuestion | LogprobsQuestion | RevisionsQuestion


@dataclass(frozen=True, slots=True)
class AnalysisRequest:
    """One question about one model."""

    model: str
    path: str
    body: bytes
    """What the client sent: the body, or the query."""
    question: Question


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Ask an engine for the log-probabilities of `prompt_token_ids[first:]`, each given all before it."""

    prompt_token_ids: "array[int]"
    first: int
    """At least 1: nothing comes before the first token."""
    num_alternatives: int
    with_next: bool = False
    """Ask for the distribution after the last token, too."""


@dataclass(frozen=True, slots=True)
class TokenScores:
    """One row for each scored token: itself, then the `num_alternatives` most likely ones, most likely first."""

    num_alternatives: int
    token_ids: "array[int]"
    """Rows of 1 + num_alternatives."""
    logprobs: "array[float]"
    """Of `token_ids`, in nats; may hold -inf."""
    ranks: "array[int]"
    """Of the scored tokens in the vocabulary, one a row; 1 is the most likely."""
    next_ids: "array[int]"
    """The most likely tokens after the last one; empty unless asked for."""
    next_logprobs: "array[float]"
    usage: Usage


@dataclass(frozen=True, slots=True)
class BranchRequest:
    """Ask an engine for the most likely next tokens, each followed by greedy ones."""

    prompt_token_ids: "array[int]"
    num_branches: int
    num_future_tokens: int
    skip_token_ids: frozenset[int]
    """Tokens to pass over for the next most likely."""


@dataclass(frozen=True, slots=True)
class Branch:
    token_id: int
    logprob: float
    future_ids: "array[int]"


@dataclass(frozen=True, slots=True)
class Branches:
    """Most likely first; fewer than asked for when the engine knows no more."""

    branches: tuple[Branch, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """Ask an engine for `n` sampled continuations."""

    prompt_token_ids: "array[int]"
    n: int
    max_tokens: int
    temperature: float
    top_k: int
    top_p: float


@dataclass(frozen=True, slots=True)
class Samples:
    token_ids: "tuple[array[int], ...]"
    usage: Usage
