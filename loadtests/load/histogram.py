"""Counts of times in steps of 2 %: percentiles are within 1 %, and the counts of several processes add up."""

import math
from typing import TypeVar

Key = TypeVar("Key")

STEP = math.log(1.02)
SHORTEST_S = 1e-6

Histogram = dict[int, int]
"""How many times lie around `exp(index * STEP)` seconds, by index."""


def add_time(histogram: Histogram, time_s: float) -> None:
    index = round(math.log(max(time_s, SHORTEST_S)) / STEP)
    histogram[index] = histogram.get(index, 0) + 1


def time_s(index: int) -> float:
    return math.exp(index * STEP)


def percentile_s(histogram: Histogram, share: float) -> float | None:
    """Return the time that a share (0 to 1) of all lie within; None: there are none."""
    wanted = share * sum(histogram.values())
    reached = 0
    for index in sorted(histogram):
        reached += histogram[index]
        if reached >= wanted:
            return time_s(index)
    return None


def cumulative(histogram: Histogram) -> list[tuple[float, float]]:
    """Return (time in seconds, share of all that lie within it), by rising time."""
    total = sum(histogram.values())
    reached = 0
    points = []
    for index in sorted(histogram):
        reached += histogram[index]
        points.append((time_s(index), reached / total))
    return points


def add_counts(to: dict[Key, int], counts: dict[Key, int]) -> None:
    for key, count in counts.items():
        to[key] = to.get(key, 0) + count
