"""What a request may hold and how long it may take: the one table of limits."""

from pydantic import Field

from config.settings import Settings


class RequestLimits(Settings):
    """Bounds of one request, checked before any engine work."""

    max_body_bytes: int = Field(default=32 * 2**20, ge=1024, le=2**30)
    """Largest request body; larger ones are answered 413."""
    max_json_depth: int = Field(default=64, ge=8, le=500)
    """Most objects and lists inside each other."""
    max_json_values: int = Field(default=1_000_000, ge=100, le=2**30)
    """Most values of a body. Commas and brackets are counted, those within texts too."""
    max_json_objects: int = Field(default=100_000, ge=100, le=2**30)
    """Most objects and lists of a body: the engine looks at each of them."""
    max_choices: int = Field(default=64, ge=1, le=16384)
    """Largest `n`."""
    max_prompts: int = Field(default=2048, ge=1, le=2**20)
    """Most prompts, texts or documents of a batch."""
    max_sequences: int = Field(default=4096, ge=1, le=2**20)
    """Most answers of a batch: its prompts times `n`."""
    max_logprobs: int = Field(default=20, ge=0, le=2**20)
    """Largest `logprobs`, `top_logprobs` and `prompt_logprobs`; the engine's own `max_logprobs` holds as well."""
    max_messages: int = Field(default=4096, ge=1, le=2**20)
    """Most messages of a conversation."""
    max_input_items: int = Field(default=512, ge=1, le=2**20)
    """Most items of a `/v1/responses` input. Of each that it does not understand vLLM makes hundreds of errors."""
    max_parts: int = Field(default=16384, ge=1, le=2**24)
    """Most content parts and tool calls of a conversation, all messages together."""
    max_tools: int = Field(default=256, ge=0, le=2**16)
    """Most tools of a request."""
    max_stop_sequences: int = Field(default=16, ge=0, le=4096)
    """Most texts in `stop`: each is looked for after every token."""
    max_stop_chars: int = Field(default=1024, ge=1, le=2**20)
    """Longest text in `stop`."""
    max_bad_words: int = Field(default=1024, ge=0, le=2**20)
    """Most texts in `bad_words`."""
    max_bad_word_chars: int = Field(default=256, ge=1, le=2**20)
    """Longest text in `bad_words`."""
    max_logit_bias: int = Field(default=1024, ge=0, le=2**20)
    """Most entries of `logit_bias`."""
    max_token_ids: int = Field(default=16384, ge=0, le=2**24)
    """Most ids in `allowed_token_ids` and in `stop_token_ids`, and most entries of any other list that is no batch."""
    max_schema_bytes: int = Field(default=256 * 1024, ge=64, le=2**28)
    """Longest JSON schema, grammar, regular expression or list of choices, written as JSON."""
    max_schema_depth: int = Field(default=64, ge=1, le=500)
    """Most objects and lists inside each other in a JSON schema."""
    ignored_fields: frozenset[str] = frozenset(
        """cache_control inference_geo metadata prediction prompt_cache_key prompt_cache_options prompt_cache_retention
        safety_identifier service_tier store stream_options user""".split()
    )
    """Fields that change nothing about an answer: accepted though the engine does not know them."""
    refused_fields: frozenset[str] = frozenset(
        """priority kv_transfer_params ec_transfer_params vllm_xargs mm_processor_kwargs media_io_kwargs mm_payload
        return_mm_kwargs prompt_embeds request_id bootstrap_host bootstrap_port bootstrap_room""".split()
    )
    """Fields that the engine knows and that clients must not use: they reach into its process, or past others."""


class Deadlines(Settings):
    """How long a request may take. All in seconds."""

    body_s: float = Field(default=60, gt=0, le=86400)
    """From the headers to the end of the body; then 408."""
    first_byte_s: float = Field(default=900, gt=0, le=86400)
    """From the complete body to the answer's first byte: waiting for a replica, a model that loads, a long prompt."""
    idle_s: float = Field(default=300, gt=0, le=86400)
    """Between two chunks of an answer, whether the engine is late or the client does not read."""
    total_s: float = Field(default=3600, gt=0, le=86400 * 7)
    """From the complete body to the end of the answer."""
    heartbeat_s: float = Field(default=10, gt=0, le=3600)
    """A streaming request that waits this long for its first byte is sent a comment, and again as often, so that
    nothing between takes the connection for dead. From the first one on, an error comes as the stream's last event."""
