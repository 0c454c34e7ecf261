"""Sharing counts with the other ingress replicas."""

import asyncio
import logging
from typing import Any

from deployments.usage.counters import Ledger

logger = logging.getLogger("ray.serve")

DEPLOYMENT = "KeyUsage"


class UsageClient:
    """Keeps a ledger up to date with what the other replicas count; `handle` is that of KeyUsage."""

    def __init__(self, handle: Any, ledger: Ledger, interval_s: float) -> None:
        self._exchange = handle.exchange
        self._ledger = ledger
        self._interval_s = interval_s

    async def watch(self) -> None:
        """Exchange counts for ever; while that fails, the last counts of the others fade as their minutes pass."""
        is_well = True
        while True:
            try:
                await asyncio.wait_for(self.exchange(), timeout=max(1.0, self._interval_s))
                is_well = True
            except Exception:
                if is_well:
                    logger.exception("cannot share the use of API keys; limits hold per ingress replica for now")
                is_well = False
                self._ledger.lose_touch()
            await asyncio.sleep(self._interval_s)

    async def exchange(self) -> None:
        self._ledger.learn(await self._exchange.remote(self._ledger.replica, self._ledger.report()))
