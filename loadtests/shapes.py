"""How many users there are, second by second; and when requests are due when users do not wait for answers."""

import random
from collections.abc import Iterator
from typing import Literal

Shape = Literal["constant", "ramp", "step", "spike", "soak"]
NUM_STEPS = 5
SPIKE_FACTOR = 4


def users_at(shape: Shape, now_s: float, run_s: float, users: int) -> int | None:
    """Return how many users there are `now_s` after the start; None: the run is over.

    ramp: from one to all of them. step: five equal steps. spike: a quarter of them, all of them in the middle fifth.
    soak and constant: all of them from the start; a soak is a constant load of hours.
    """
    if now_s >= run_s:
        return None
    share = now_s / run_s
    if shape == "ramp":
        return max(1, round(users * share))
    if shape == "step":
        return max(1, users * (int(share * NUM_STEPS) + 1) // NUM_STEPS)
    if shape == "spike":
        return users if 0.4 <= share < 0.6 else max(1, users // SPIKE_FACTOR)
    return users


def arrivals(rate_per_s: float, is_poisson: bool, random_source: random.Random) -> Iterator[float]:
    """Yield for ever when requests are due, in seconds after the start: evenly, or as a Poisson process.

    An open load: a server that is slow gets as many requests as a fast one.
    """
    at_s = 0.0
    while True:
        at_s += random_source.expovariate(rate_per_s) if is_poisson else 1 / rate_per_s
        yield at_s
