"""What one HTTP request costs, without a look at its bytes: whoever serves it notes where the counts can be read."""

from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context

from deployments.types import Usage


class Meter:
    """The engine requests that belong to one HTTP request; several with `n`, batches or beam search."""

    def __init__(self) -> None:
        self._sources: list[Callable[[], Usage]] = []

    def note(self, read: Callable[[], Usage]) -> None:
        """Add an engine request; `read` gives its counts, now and when it has ended."""
        self._sources.append(read)

    @property
    def has_reached_engine(self) -> bool:
        return bool(self._sources)

    def total(self) -> Usage:
        usages = [read() for read in self._sources]
        return Usage(sum(usage.prompt_tokens for usage in usages), sum(usage.completion_tokens for usage in usages))


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


def metered() -> tuple[Meter, Context]:
    """Return a new meter, and the context to serve its request in: tasks that are made there inherit it."""
    meter, context = Meter(), copy_context()
    context.run(_METER.set, meter)
    return meter, context


def note(read: Callable[[], Usage]) -> None:
    """Add an engine request to the meter of the request that is being served, if it is metered."""
    meter = _METER.get()
    if meter is not None:
        meter.note(read)
