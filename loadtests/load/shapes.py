"""How much load there is, second by second; and when requests are due when users do not wait for answers."""

import random
from collections.abc import Iterator
from typing import Literal

Shape = Literal["constant", "ramp", "step", "spike", "soak"]
NUM_STEPS = 5
SPIKE_FACTOR = 4


def share_at(shape: Shape, now_s: float, run_s: float) -> float:
    """Return which share of its full load a run has `now_s` after its start.

    ramp: from nothing to all of it. step: five equal steps. spike: a quarter, all of it in the middle fifth.
    soak and constant: all of it from the start; a soak is a constant load of hours.
    """
    gone = min(now_s / run_s, 1.0)
    if shape == "ramp":
        return gone
    if shape == "step":
        return min(int(gone * NUM_STEPS) + 1, NUM_STEPS) / NUM_STEPS
    if shape == "spike":
        return 1.0 if 0.4 <= gone < 0.6 else 1 / SPIKE_FACTOR
    return 1.0


def users_at(shape: Shape, now_s: float, run_s: float, users: int) -> int:
    return max(1, round(users * share_at(shape, now_s, run_s)))


class Arrivals:
    """An open load: when requests are due, evenly or as a Poisson process. A slow server gets as many as a fast one."""

    def __init__(self, is_poisson: bool, random_source: random.Random, begin_s: float) -> None:
        self._is_poisson = is_poisson
        self._random = random_source
        self._at_s = begin_s
        self._left = self._draw()

    def until(self, end_s: float, rate_per_s: float) -> Iterator[float]:
        """Yield when requests are due between the last call's end and `end_s`; the rate may change at each call."""
        while rate_per_s > 0 and self._at_s + self._left / rate_per_s <= end_s:
            self._at_s += self._left / rate_per_s
            self._left = self._draw()
            yield self._at_s
        self._left -= (end_s - self._at_s) * rate_per_s
        self._at_s = end_s

    def _draw(self) -> float:
        """Return how much of rate times time passes until the next request."""
        return self._random.expovariate(1.0) if self._is_poisson else 1.0
