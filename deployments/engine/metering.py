"""What one HTTP request costs and how long it takes, without a look at its bytes.

Whoever serves it notes where counts and times can be read.
"""

from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, replace
from time import monotonic

from deployments.types import EngineTimes, Usage


@dataclass(frozen=True, slots=True)
class Stamps:
    """When an engine request came to each of its stages, seconds of the machine's monotonic clock; 0: never."""

    arrived_s: float
    scheduled_s: float
    first_token_s: float
    last_token_s: float


class Meter:
    """The engine requests that belong to one HTTP request; several with `n`, batches or beam search."""

    def __init__(self) -> None:
        self._begun_s = monotonic()
        self._waited_s = 0.0
        self._sources: list[Callable[[], Usage]] = []
        self._stamps: list[Callable[[], Stamps]] = []

    def note(self, read: Callable[[], Usage], stamps: Callable[[], Stamps] | None = None) -> None:
        """Add an engine request; `read` gives its counts, now and when it has ended, and so does `stamps`."""
        self._sources.append(read)
        if stamps is not None:
            self._stamps.append(stamps)

    def waited(self, seconds: float) -> None:
        """Note how long an engine request waited for its constraint; several wait at the same time."""
        self._waited_s = max(self._waited_s, seconds)

    @property
    def has_reached_engine(self) -> bool:
        return bool(self._sources)

    def total(self) -> Usage:
        usages = [read() for read in self._sources]
        return Usage(sum(usage.prompt_tokens for usage in usages), sum(usage.completion_tokens for usage in usages))

    def end(self) -> Usage:
        """Return the total of a request that ends now, with its times."""
        return replace(self.total(), times=self._times(monotonic()))

    def _times(self, now_s: float) -> EngineTimes | None:
        """Split the time up to now; None when an engine worked on it that says nothing one could rely on."""
        all_stamps = [read() for read in self._stamps]
        if not all_stamps:
            return None if self._sources else EngineTimes(now_s - self._begun_s)
        # Of several engine requests, the whole: from the first one that reached a stage to the last token of all.
        arrived_s = min(stamps.arrived_s for stamps in all_stamps)
        scheduled_s = min(stamps.scheduled_s for stamps in all_stamps)
        first_s = min(stamps.first_token_s for stamps in all_stamps)
        last_s = max(stamps.last_token_s for stamps in all_stamps)
        if not self._begun_s <= arrived_s <= scheduled_s <= first_s <= last_s <= now_s:
            return None  # aborted before it began, or a core on another machine, by another clock
        prepared_s = arrived_s - self._begun_s
        waited_s = min(self._waited_s, prepared_s)
        return EngineTimes(
            template_and_tokenize_s=prepared_s - waited_s,
            guided_wait_s=waited_s,
            engine_queue_s=scheduled_s - arrived_s,
            prefill_s=first_s - scheduled_s,
            decode_s=last_s - first_s,
            detokenize_and_serialise_s=now_s - last_s,
        )


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


def metered() -> tuple[Meter, Context]:
    """Return a new meter, and the context to serve its request in: tasks that are made there inherit it."""
    meter, context = Meter(), copy_context()
    context.run(_METER.set, meter)
    return meter, context


def note(read: Callable[[], Usage], stamps: Callable[[], Stamps] | None = None) -> None:
    """Add an engine request to the meter of the request that is being served, if it is metered."""
    meter = _METER.get()
    if meter is not None:
        meter.note(read, stamps)


def waited(seconds: float) -> None:
    """Note how long the request that is being served waited for a constraint, if it is metered."""
    meter = _METER.get()
    if meter is not None:
        meter.waited(seconds)
