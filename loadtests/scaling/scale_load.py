"""Streams that never end, and what of them falls within a time: the load of `loadtests.scale`."""

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from loadtests.comparison.figures import percentile
from loadtests.layers.streams import Source

T = TypeVar("T")
NUMBERS = itertools.count()


@dataclass(frozen=True, slots=True)
class Answer:
    """A request, perhaps not yet at its end; times by `perf_counter`, in seconds."""

    begin_s: float
    times_s: list[float]


@dataclass(frozen=True, slots=True)
class Window:
    """What came within a time."""

    seconds: float
    tokens: int
    requests: int
    """Whose first token came within it."""
    ttft_p50_s: float
    ttft_p99_s: float
    itl_p99_s: float


class Endless:
    """So many users; each asks again as soon as it is answered. They begin one after the other, within `ramp_s`."""

    def __init__(self, source: Source, streams: int, tokens: int, ramp_s: float) -> None:
        self._source = source
        self._tokens = tokens
        self._answers: list[Answer] = []
        self._tasks = [asyncio.create_task(self._use(ramp_s * number / streams)) for number in range(streams)]

    async def _use(self, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        while True:
            answer = Answer(time.perf_counter(), [])
            self._answers.append(answer)
            await self._source(next(NUMBERS), self._tokens, answer.times_s)

    async def watch(self, seconds: float, look: Callable[[], T]) -> tuple[Window, T, T]:
        """Wait so long and return what came meanwhile, and what `look` saw before and after; raises what users met."""
        before, begin_s = look(), time.perf_counter()
        done, _ = await asyncio.wait(self._tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        end_s, after = time.perf_counter(), look()
        return within(self._answers, begin_s, end_s), before, after

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


def within(answers: list[Answer], begin_s: float, end_s: float) -> Window:
    """Cut a time out of answers: its tokens, the first ones among them, the gaps that ended in it."""
    firsts = [answer for answer in answers if answer.times_s and begin_s <= answer.times_s[0] < end_s]
    ttfts = [answer.times_s[0] - answer.begin_s for answer in firsts]
    gaps = [
        later - earlier for answer in answers for earlier, later in pairwise(answer.times_s) if begin_s <= later < end_s
    ]
    return Window(
        seconds=end_s - begin_s,
        tokens=sum(begin_s <= time_s < end_s for answer in answers for time_s in answer.times_s),
        requests=len(firsts),
        ttft_p50_s=percentile(ttfts, 0.5) or 0.0,
        ttft_p99_s=percentile(ttfts, 0.99) or 0.0,
        itl_p99_s=percentile(gaps, 0.99) or 0.0,
    )
