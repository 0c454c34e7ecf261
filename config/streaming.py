"""Settings of streamed answers: how many tokens an engine joins in one chunk."""

from pydantic import Field

from config.settings import Settings


class StreamingSettings(Settings):
    """A chunk costs the same whether it holds one token or eight, and with many streams most of the work in front of an
    engine is chunks. So the more streams there are and the faster they run, the more tokens a chunk has; the first and
    the last one of a stream never wait. vLLM's own `stream_interval`, in `engine_args`, is the least; requests that
    have a `stream_interval` of their own keep it."""

    adaptive: bool = True
    """False: a chunk for every token, or for as many as vLLM's `stream_interval` says."""
    min_updates_per_s: float = Field(default=15.0, ge=1, le=1000)
    """Chunks per second that each stream shows at least, on average, if it has as many tokens."""
    min_streams: int = Field(default=8, ge=2, le=10**6)
    """Streams that a replica must have under way before any chunk holds more than one token."""
    max_interval_tokens: int = Field(default=32, ge=1, le=1024)
    """Most tokens that are joined, however fast the engine is."""
