"""Single flight: whoever wants the same thing at the same time waits for one attempt to make it."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

from deployments.errors import EngineUnavailableError

T = TypeVar("T")


class Flight(Generic[T]):
    """One attempt, and how many wait for it."""

    def __init__(self, task: "asyncio.Task[T]") -> None:
        self.task = task
        self.num_waiting = 0


class Flights(Generic[T]):
    """Attempts under way, by key. For one event loop."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight[T]] = {}
        self._tasks: set[asyncio.Task[T]] = set()  # the event loop alone would not keep those that are ending

    def __len__(self) -> int:
        return len(self._flights)

    async def run(self, key: str, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Wait for the attempt that is under way for a key; without one, `begin` it.

        Its error reaches everybody who waits. Who is cancelled leaves the others waiting; when the last one leaves,
        the attempt is cancelled.
        """
        flight = self._flights.get(key) or self._start(key, begin)
        flight.num_waiting += 1
        try:
            await asyncio.wait({flight.task})  # unlike the task itself, it can be cancelled alone
        finally:
            flight.num_waiting -= 1
            if not flight.num_waiting:
                self._forget(key, flight)  # first: nobody must join an attempt that is being cancelled
                flight.task.cancel()
        if flight.task.cancelled():
            raise EngineUnavailableError("What was waited for has been called off. Retry.", None, 1)
        return flight.task.result()

    def _start(self, key: str, begin: Callable[[], Coroutine[Any, Any, T]]) -> Flight[T]:
        # It belongs to all who wait, so not to the first one's request: Serve ends the calls of a request that ends.
        task = asyncio.get_running_loop().create_task(begin(), context=Context())
        flight = self._flights[key] = Flight(task)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._forget(key, flight))
        task.add_done_callback(self._ended)
        return flight

    def _forget(self, key: str, flight: Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _ended(self, task: "asyncio.Task[T]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # when nobody waits any more, asyncio would log that nobody looked at it
