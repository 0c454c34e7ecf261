"""Settings of the writing tools: the Tokenizer deployment and `/api`."""

from pydantic import Field

from config.settings import Settings


class WritingSettings(Settings):
    """What token-level analysis may cost. `limits.max_logprobs` of the gateway bounds `k`."""

    max_document_chars: int = Field(default=200_000, ge=50, le=2**28)
    """Longest document, prompt or message, in characters."""
    max_future_tokens: int = Field(default=64, ge=0, le=4096)
    """Largest `n_future_tokens`."""
    max_revision_tokens: int = Field(default=8192, ge=1, le=2**20)
    """Largest `max_length` of a revision, in tokens."""
    max_concurrent_per_model: int = Field(default=32, ge=1, le=10**5)
    """Questions about one model that one Tokenizer replica has under way; more are answered 429."""
    max_scorings_per_model: int = Field(default=4, ge=1, le=10**5)
    """Documents of one model that one Tokenizer replica has its engines score at once. The others wait here, where they
    take no place from chats."""
    max_tokenizers: int = Field(default=8, ge=1, le=1024)
    """Tokenizers that one replica keeps in memory; beyond that the one that was unused for longest is dropped."""
    stream_first_tokens: int = Field(default=128, ge=1, le=2**20)
    """Tokens of a document in the first event of streamed highlights; each further event has twice as many."""
    window_overlap: float = Field(default=0.25, ge=0.0, le=0.75)
    """Share of a window that repeats the end of the one before, as context, when a document is scored in windows."""
    retry_after_s: int = Field(default=1, ge=1, le=3600)
    """`Retry-After` of a 429, in seconds."""
