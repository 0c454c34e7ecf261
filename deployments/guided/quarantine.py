"""Constraints that crashed their compiler or took too long: refused for a while without another try."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from deployments.guided_types import Refused


class Quarantine:
    """So many refusals at most, each for so long. Not for ever: a busy machine makes everything take too long.

    All stay equally long, so the first one in is the first to go. `now_s` is any steady clock.
    """

    def __init__(self, stay_s: float, max_refusals: int, now_s: Callable[[], float] = time.monotonic) -> None:
        self._stay_s = stay_s
        self._max_refusals = max_refusals
        self._now_s = now_s
        self._refusals: OrderedDict[str, tuple[Refused, float]] = OrderedDict()

    def __len__(self) -> int:
        self._release()
        return len(self._refusals)

    def get(self, key: str) -> Refused | None:
        """Return why a constraint is refused, and when that ends."""
        self._release()
        if key not in self._refusals:
            return None
        refused, until_s = self._refusals[key]
        left_s = math.ceil(until_s - self._now_s())
        return replace(refused, message=f"{refused.message} It may be tried again in {left_s} s.")

    def put(self, refused: Refused) -> None:
        self._refusals.pop(refused.key, None)
        self._refusals[refused.key] = (refused, self._now_s() + self._stay_s)
        while len(self._refusals) > self._max_refusals:
            self._refusals.popitem(last=False)

    def _release(self) -> None:
        while self._refusals:
            key, (_, until_s) = next(iter(self._refusals.items()))
            if self._now_s() < until_s:
                return
            del self._refusals[key]
