"""How late an event loop comes to what is due: above some milliseconds, everything in its process waits."""

import asyncio
from collections.abc import Callable

TICK_S = 0.1
REPORT_EVERY_S = 10.0
"""As often as Ray exports metrics: the worst of each export counts."""


async def watch_loop(report: Callable[[float], None]) -> None:
    """Report for ever, in seconds, how late the running loop was at worst since the last report."""
    loop = asyncio.get_running_loop()
    while True:
        worst_s = 0.0
        until_s = loop.time() + REPORT_EVERY_S
        while (due_s := loop.time() + TICK_S) < until_s:
            await asyncio.sleep(TICK_S)
            worst_s = max(worst_s, loop.time() - due_s)
        report(worst_s)
