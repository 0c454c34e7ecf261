"""A histogram that is filled often and read seldom."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class News:
    """What has come since the last look."""

    buckets: tuple[int, ...]
    """Values up to each bound, of which those up to the bound before are a part, and all: as Prometheus has them."""
    total: float

    @property
    def count(self) -> int:
        return self.buckets[-1]


class Tally:
    """Counts values by upper bounds. One thread adds and another one looks: nothing is ever taken away, so neither
    waits for the other; a value that comes during a look may be counted in its bucket now and in the sum next time."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0
        self._seen = tuple(self._counts)
        self._seen_total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def news(self) -> News:
        counts, total = tuple(self._counts), self._total
        buckets, sum_of_counts = [], 0
        for count, seen in zip(counts, self._seen, strict=True):
            sum_of_counts += count - seen
            buckets.append(sum_of_counts)
        news = News(tuple(buckets), total - self._seen_total)
        self._seen, self._seen_total = counts, total
        return news
