"""Deadlines of one request, at no cost per chunk: a timer looks now and then at when something last moved."""

import asyncio
from types import TracebackType

from config.limits import Deadlines
from deployments.errors import DeadlineExceededError


class Pace:
    """Cancels what the block does when it moves too slowly; DeadlineExceededError then leaves the block.

    A stream has `first_byte_s` until `started` is called, then `idle_s` until each call of `moved`; an answer that
    comes as a whole has `total_s`.
    """

    def __init__(self, deadlines: Deadlines, is_stream: bool) -> None:
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self._begun_s = self._moved_s = self._loop.time()
        self._allowed_s = deadlines.first_byte_s if is_stream else deadlines.total_s
        self._expired = ""

    async def __aenter__(self) -> "Pace":
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = self._loop.call_at(self._due_s(), self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._expired and self._task.uncancel() <= 0 and kind is asyncio.CancelledError:
            raise DeadlineExceededError(self._expired) from None

    def started(self) -> None:
        """Note the first chunk."""
        self._allowed_s = self._deadlines.idle_s
        self.moved()
        self._timer.cancel()
        self._timer = self._loop.call_at(self._due_s(), self._look)

    def moved(self) -> None:
        self._moved_s = self._loop.time()

    def _due_s(self) -> float:
        return min(self._moved_s + self._allowed_s, self._begun_s + self._deadlines.total_s)

    def _look(self) -> None:
        now_s = self._loop.time()
        if now_s < self._due_s():
            self._timer = self._loop.call_at(self._due_s(), self._look)
            return
        is_total = now_s >= self._begun_s + self._deadlines.total_s
        limit_s = self._deadlines.total_s if is_total else self._allowed_s
        what = "took longer than" if is_total else "made no progress for"
        self._expired = f"The request {what} {limit_s:g} s and was given up."
        self._task.cancel()
