"""A histogram that is filled often and read seldom."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Totals:
    """All values so far."""

    buckets: tuple[int, ...]
    """Values up to each bound, of which those up to the bound before are a part, and all: as Prometheus has them."""
    sum: float

    @property
    def count(self) -> int:
        return self.buckets[-1]


class Tally:
    """Counts values by upper bounds. One thread adds and another one looks: nothing is ever taken away, so neither
    waits for the other; a value that comes during a look may be in its bucket now and in the sum at the next look."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def totals(self) -> Totals:
        return Totals(tuple(accumulate(self._counts)), self._sum)
