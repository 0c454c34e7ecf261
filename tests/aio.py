"""Run asynchronous tests: no plugin, no sleep, and a deadlock fails instead of hanging."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
HANGS_AFTER_S = 30


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, HANGS_AFTER_S))


async def until(condition: Callable[[], bool]) -> None:
    """Let the other tasks of the loop run until `condition` holds."""
    while not condition():
        await asyncio.sleep(0)


async def settle() -> None:
    """Let every task run as far as it gets without input from outside the loop."""
    for _ in range(100):
        await asyncio.sleep(0)


async def leave(items: AsyncIterator[Any]) -> None:
    """Stop reading half-way, as Serve does when the client has left."""
    assert isinstance(items, AsyncGenerator)
    await items.aclose()
