"""vLLM's `stream_interval`, set while streams run."""

from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any
from weakref import WeakSet

from vllm.sampling_params import RequestOutputKind
from vllm.v1.metrics.loggers import StatLoggerBase

from config.streaming import StreamingSettings
from deployments.engine.metered_llm import tell_of_new
from deployments.engine.stream_interval import StreamInterval

ONE_TOKEN_PARSERS = ("hunyuan_a13b",)
"""vLLM's reasoning parsers that fail on a chunk of more than one token; all others take what speculative decoding, or a
late event loop, brings at once."""


class Streams:
    """The streams of one engine, and how many tokens they join."""

    def __init__(self, settings: StreamingSettings, clock: Callable[[], float] = monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._interval = StreamInterval(settings)
        self._states: WeakSet[Any] = WeakSet()  # vLLM's, which holds them as long as they run
        self._leaving: list[Any] = []
        self._processor: Any = None

    def follow(self, processor: Any, reasoning_parser: str = "") -> None:
        """Set the interval of the streams that vLLM's OutputProcessor is given from now on, if the settings say so."""
        if self._settings.adaptive and reasoning_parser not in ONE_TOKEN_PARSERS:
            self._processor = processor
            tell_of_new(processor, self._begin)

    def make_recorder(self, vllm_config: Any, engine_index: int = 0) -> "StreamRecorder":
        """Be a factory of vLLM's stat loggers, one for each engine core."""
        return StreamRecorder(self)

    def _begin(self, request: Any, state: Any, index: int) -> None:
        if not may_join(request):
            return
        self._states.add(state)
        # The last decision may be of a load that is long gone.
        if len(self._processor.request_states) >= self._settings.min_streams:
            set_interval(state, max(self._interval.tokens, self._processor.stream_interval))

    def after_step(self, gaps_s: list[float]) -> None:
        """Take what an engine step brought. To be called between two steps, when all its tokens are in the states."""
        if self._processor is None:
            return
        self._interval.add(gaps_s)
        if self._leaving:
            self._leaving = still_joining(self._leaving)
        now_s = self._clock()
        if self._interval.is_due(now_s):
            self._decide(now_s)

    def _decide(self, now_s: float) -> None:
        states = [state for state in self._states if state.request_id in self._processor.request_states]
        num_begun = sum(not state.is_prefilling for state in states)
        tokens = max(self._interval.decide(num_begun, now_s), self._processor.stream_interval)
        self._leaving = [state for state in states if not set_interval(state, tokens)]


class StreamRecorder(StatLoggerBase):  # type: ignore[misc]
    """A vLLM stat logger that tells Streams of each step: vLLM calls `record` when a step is in its states."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        if iteration_stats is not None:
            self._streams.after_step(iteration_stats.inter_token_latencies_iter)

    def log_engine_initialized(self) -> None:
        """Nothing to log."""


def may_join(request: Any) -> bool:
    """Say whether the chunks of an EngineCoreRequest may hold more tokens than vLLM would put into them."""
    params = request.sampling_params
    return (
        params is not None  # a pooling request
        and params.output_kind == RequestOutputKind.DELTA  # others are sent whole each time, or once
        and params.stream_interval is None
        and not request.resumable  # its prompt is streamed, too; no route here has that
    )


def set_interval(state: Any, tokens: int) -> bool:
    """Have vLLM send a RequestState's tokens by so many from now on; False when one more token must come first.

    With an interval of 1 vLLM sends what a step has brought, whatever the offset says, and leaves the offset alone. So
    it is brought up to date when joining begins, or all would be sent again; and joining ends when nothing is held
    back, or that would never be sent.
    """
    num_made = state.detokenizer.num_output_tokens()
    is_joining = state.stream_interval > 1
    if tokens > 1:
        if not is_joining:
            state.sent_tokens_offset = num_made
        state.stream_interval = tokens
        return True
    is_done = not is_joining or state.sent_tokens_offset == num_made
    state.stream_interval = 1 if is_done else 2
    return is_done


def still_joining(states: Iterable[Any]) -> list[Any]:
    """Set the interval of states to 1 where nothing is held back, and return the others."""
    return [state for state in states if not set_interval(state, 1)]
