"""Messages that cross handles: plain, frozen, picklable."""

from dataclasses import dataclass, field, fields
from typing import Literal

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class GuidedOptions:
    """How a request wants its constraints treated."""

    strict: bool = True
    """Refuse keywords that nothing enforces."""
    receipt: bool = False
    """Say in a header of the response what enforces the constraint."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request on its way to an engine."""

    method: str
    path: str
    query: bytes
    headers: Headers
    """Names in lower case; only what the engine may see."""
    body: bytes
    guided: GuidedOptions = GuidedOptions()


@dataclass(frozen=True, slots=True)
class Accepted:
    """First item of every engine response: a replica has the request. Until it comes, the request waits for one."""


@dataclass(frozen=True, slots=True)
class HttpHead:
    """Second item of every engine response; the items after it are the body's raw bytes."""

    status: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class EngineTimes:
    """Where the time of a request went in an engine's replica, one after the other, in seconds."""

    template_and_tokenize_s: float
    """From its arrival until the engine has its prompt; all of it for what needs no engine."""
    guided_wait_s: float = 0.0
    """Until its constraint was ready."""
    engine_queue_s: float = 0.0
    """Until the engine first computed anything of it."""
    prefill_s: float = 0.0
    """Until its first token."""
    decode_s: float = 0.0
    """Until its last token."""
    detokenize_and_serialise_s: float = 0.0
    """Until the last byte of its answer was made. What is done for earlier tokens is done while later ones are."""

    def parts(self) -> dict[str, float]:
        """Return the seconds by layer, in order."""
        return {field.name.removesuffix("_s"): getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class Usage:
    """Last item of an engine response that is read to its end: what the request cost."""

    prompt_tokens: int
    """Of all prompts of the request, cached ones too."""
    completion_tokens: int
    """Of all choices."""
    times: EngineTimes | None = field(default=None, compare=False)
    """None: not known."""


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """Where a model's tokenizer is, and how its chats are written."""

    path: str
    """A folder, or a Hugging Face id."""
    revision: str | None = None
    trust_remote_code: bool = False
    chat_template: str | None = None
    """Jinja text that chats are rendered with; None: the tokenizer's own, if it has one."""
    content_format: Literal["string", "openai"] = "string"
    """Whether that template reads a message's content as a text, or as a list of parts."""
    template_arguments: str = "{}"
    """JSON object of what that template is given besides the messages."""
    digest: str = ""
    """Of the tokenizer's own description: a model that is deployed anew may have another one in the same place."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a ready engine says of the model it serves."""

    name: str
    max_model_len: int
    """Context window, in tokens."""
    created: int
    """Start of the replica that answered, Unix seconds."""
    version: str
    """Name and version of the engine."""
    paths: frozenset[str]
    """HTTP routes that the model has: a chat model has no embeddings."""
    vocab_size: int
    """Token ids are smaller than this."""
    openapi: str = field(repr=False)
    """OpenAPI document of these routes, JSON: what a request may hold."""
    chat_template_kwargs: frozenset[str] = frozenset()
    """Names that a request may write into `chat_template_kwargs`."""
    allow_chat_template: bool = False
    """Whether a request may bring a template of its own."""
    media_domains: frozenset[str] = frozenset()
    """Hosts that a request's media may be fetched from; empty: none."""
    tokenizer: TokenizerSource | None = None
    """None: the model generates nothing, or has no tokenizer that others could load."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Load of one replica, as its scheduler last reported it."""

    num_running: int
    num_waiting: int
    kv_cache_usage: float
    """Share of KV-cache blocks in use, 0 to 1."""
