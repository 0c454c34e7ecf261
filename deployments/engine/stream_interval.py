"""How many tokens of a stream go into one chunk: decided from how many streams there are, and how fast they run."""

from collections.abc import Sequence

from config.streaming import StreamingSettings

PERIOD_S = 0.25
"""Between two decisions: a quarter of what a reader would notice as a change of pace."""
KEPT_SHARE = 0.5
"""Of the gaps of earlier periods in the next decision, so that one long step, a prefill, decides nothing alone."""
MARGIN_TOKENS = 0.25
"""An interval grows only when the next one has so much room, or it would change at every decision."""
LEAVING_SHARE = 0.75
"""Joining ends when only so many of `min_streams` are left, for the same reason."""
ROUNDING = 1e-9
"""60 tokens/s at 15 updates/s are 4 tokens, whatever 1/60 is in binary."""


class StreamInterval:
    """The tokens per chunk of all streams of one replica. Times are seconds of a monotonic clock."""

    def __init__(self, settings: StreamingSettings) -> None:
        self._settings = settings
        self._due_s = 0.0
        self._gaps = 0.0
        self._gaps_s = 0.0
        self.tokens = 1

    def add(self, gaps_s: Sequence[float]) -> None:
        """Note how long streams took from one output of the engine to the next."""
        self._gaps += len(gaps_s)
        self._gaps_s += sum(gaps_s)

    def is_due(self, now_s: float) -> bool:
        return now_s >= self._due_s

    def decide(self, num_streams: int, now_s: float) -> int:
        """Return the tokens per chunk until the next decision. num_streams: those that have begun to show tokens."""
        self._due_s = now_s + PERIOD_S
        least = self._settings.min_streams * (LEAVING_SHARE if self.tokens > 1 else 1)
        if num_streams < least:
            self.tokens, self._gaps, self._gaps_s = 1, 0.0, 0.0
        elif self._gaps_s > 0:
            room = self._gaps / self._gaps_s / self._settings.min_updates_per_s
            self.tokens = next_interval(self.tokens, room, self._settings.max_interval_tokens)
            self._gaps *= KEPT_SHARE
            self._gaps_s *= KEPT_SHARE
        return self.tokens


def next_interval(current: int, room: float, longest: int) -> int:
    """Return the tokens per chunk that follow `current`. room: tokens that a stream makes while an update may take."""
    if current <= room < current + 1 + MARGIN_TOKENS:
        return current
    return max(1, min(int(room + ROUNDING), longest))
