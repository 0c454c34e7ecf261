"""How busy each replica is, as far as one gateway can know without asking."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass


@dataclass(slots=True)
class _Replica:
    under_way: int = 0
    chosen: float = 0.0
    chosen_at_s: float = 0.0


class Loads:
    """Counts the requests that this gateway has sent to each replica, and those for which it has chosen one.

    On the handle plane a request is sent right after the choice, and its end is seen. On the direct plane neither is
    seen: there a choice counts less and less, by half after `half_life_s`.
    """

    def __init__(self, half_life_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._half_life_s = half_life_s
        self._clock = clock
        self._replicas: dict[str, _Replica] = {}

    def keep(self, replicas: Collection[str]) -> None:
        """Forget all other replicas."""
        self._replicas = {name: self._replicas.get(name, _Replica()) for name in replicas}

    def choose(self, replica: str) -> None:
        """Note that a request is about to go to a replica."""
        if entry := self._decayed(replica):
            entry.chosen += 1

    def send(self, replica: str) -> None:
        """Note that a request has been sent."""
        if entry := self._decayed(replica):
            entry.under_way += 1
            entry.chosen = max(0.0, entry.chosen - 1)

    def end(self, replica: str) -> None:
        """Note that a request has ended."""
        if entry := self._replicas.get(replica):
            entry.under_way = max(0, entry.under_way - 1)

    def of(self, replica: str, reported: float) -> float:
        """Return a replica's requests, given what it has last said of itself, which includes others' requests."""
        entry = self._decayed(replica)
        return reported if entry is None else max(reported, float(entry.under_way)) + entry.chosen

    def _decayed(self, replica: str) -> _Replica | None:
        entry = self._replicas.get(replica)
        if entry is not None:
            now_s = self._clock()
            entry.chosen *= 0.5 ** ((now_s - entry.chosen_at_s) / self._half_life_s)
            entry.chosen_at_s = now_s
        return entry
