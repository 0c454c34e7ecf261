"""What the writing tools' routes take."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

DEFAULT_PROMPT = "Rewrite this document to be more concise."


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    model: str | None = None
    """Name of the model; may be absent when there is only one, or a default."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        """Take null as absent, as front ends write it."""
        return {name: item for name, item in value.items() if item is not None} if isinstance(value, dict) else value


class Highlights(Body):
    doc: str
    """What the user's turn holds, after the prompt."""
    prompt: str = DEFAULT_PROMPT
    updated_doc: str = ""
    """The document whose tokens are scored, as the assistant's answer; blank: `doc`."""
    k: int = 5
    """Alternatives per token."""
    window: bool = False
    """Score documents beyond the model's context window in overlapping parts."""
    offsets: Literal["codepoint", "utf16"] = "codepoint"
    """What `start` and `end` count; JavaScript counts UTF-16 code units."""
    detail: bool = False
    """Add `rank`, `entropy` (nats) and `topk_logprobs` to each item."""


class NextToken(Body):
    original_doc: str
    prompt: str
    doc_in_progress: str
    """What has been written of the rewritten document."""
    k: int = 5


class Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str


class Conversation(Body):
    messages: list[Message]
    """The last one is continued when it is the assistant's; otherwise a new turn of the assistant begins."""
    n_branch_tokens: int = 5
    """Next tokens, or alternatives per token."""
    n_future_tokens: int = 1
    """Greedy tokens after each branch."""


class Revisions(Body):
    prompt: str
    doc: str
    n: int = 5
    max_length: int = 1024
    """Longest revision, in tokens."""
