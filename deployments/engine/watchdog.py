"""Is the engine alive, or has it only not died yet?"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

TICKS = 10
"""How often the shorter of the two times is looked at: a verdict is at most a tenth of it late."""


class Engine(Protocol):
    def num_unfinished(self) -> int:
        """Return how many requests the engine has and has not ended."""

    def last_step_s(self) -> float:
        """Return when the engine last did a step, by `time.monotonic`."""

    async def probe(self) -> None:
        """Have the engine generate one token."""


@dataclass
class Watchdog:
    """Finds an engine that has work and makes no steps. One that is only busy makes steps, so it is well.

    An idle engine is given work every `interval_s`: one token.
    """

    engine: Engine
    interval_s: float
    hung_after_s: float
    now_s: Callable[[], float] = time.monotonic
    is_hung: bool = False
    _busy_since_s: float | None = None
    _probing: asyncio.Future[None] | None = None

    async def watch(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Look until the engine hangs."""
        tick_s = min(self.interval_s, self.hung_after_s) / TICKS
        while not self.is_hung:
            begun_s = self.now_s()
            await sleep(tick_s)
            if self.now_s() - begun_s > 2 * tick_s:
                # This process itself stood still (a paused container, say), so it cannot have seen the engine's steps.
                self._busy_since_s = None
            self.look()

    def look(self) -> None:
        now_s, last_s = self.now_s(), self.engine.last_step_s()
        if self.engine.num_unfinished() == 0:
            self._busy_since_s = None
            if now_s - last_s >= self.interval_s:
                self.begin_probe()
            return
        if self._busy_since_s is None:
            self._busy_since_s = now_s
        self.is_hung = now_s - max(last_s, self._busy_since_s) >= self.hung_after_s

    async def probe(self, timeout_s: float) -> float:
        """Wait for a token, return the seconds it took; raises TimeoutError.

        Callers at the same time share one: asking often is no way to keep the engine busy.
        """
        begun_s = self.now_s()
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self.begin_probe())
        return self.now_s() - begun_s

    def begin_probe(self) -> asyncio.Future[None]:
        if self._probing is None or self._probing.done():
            self._probing = asyncio.ensure_future(self.engine.probe())
            self._probing.add_done_callback(lambda task: task.cancelled() or task.exception())  # a dead engine is known
        return self._probing
