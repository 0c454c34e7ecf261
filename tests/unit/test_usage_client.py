"""Ingress replicas that meet at a board in this process, as they do at KeyUsage over a handle."""

import asyncio
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from deployments.usage.client import UsageClient
from deployments.usage.counters import Board, Ledger, Report
from tests.aio import run, until
from tests.logs import of_serve

OFTEN_S = 0.001


@dataclass
class Exchange:
    """What `handle.exchange` is: its messages cross processes; it raises or hangs when told to."""

    board: Board = field(default_factory=lambda: Board(stale_after_s=30))
    trouble: Exception | asyncio.Event | None = None
    calls: int = 0

    async def remote(self, replica: str, report: Report) -> Any:
        self.calls += 1
        if isinstance(self.trouble, Exception):
            raise self.trouble
        if self.trouble is not None:
            await self.trouble.wait()
        return pickle.loads(pickle.dumps(self.board.exchange(replica, pickle.loads(pickle.dumps(report)))))


@dataclass
class Handle:
    exchange: Exchange = field(default_factory=Exchange)


def test_replicas_learn_of_each_other_and_not_of_themselves() -> None:
    async def main() -> None:
        handle, here, there = Handle(), Ledger(), Ledger()
        clients = [UsageClient(handle, ledger, OFTEN_S) for ledger in (here, there)]
        here.begin("a")
        for _ in range(2):
            for client in clients:
                await client.exchange()
        assert here.total("a").in_flight == 1
        assert there.total("a").in_flight == 1
        assert there.requests("a", 10).remaining == 9

    run(main())


@pytest.fixture
def log() -> Iterator[list[str]]:
    with of_serve() as messages:
        yield messages


def test_trouble_is_logged_once_and_over_when_it_is_over(log: list[str]) -> None:
    async def main() -> None:
        handle, ledger, other = Handle(), Ledger(), Ledger()
        other.begin("a")
        handle.exchange.board.exchange("other", other.report())
        client = UsageClient(handle, ledger, OFTEN_S)
        watching = asyncio.ensure_future(client.watch())
        await until(lambda: ledger.total("a").in_flight == 1)
        handle.exchange.trouble = RuntimeError("KeyUsage is gone")
        seen = handle.exchange.calls
        await until(lambda: handle.exchange.calls > seen + 3)
        assert ledger.total("a").in_flight == 0, "nobody says any more when they end"
        assert ledger.requests("a", 10).remaining == 9, "what was used was used"
        handle.exchange.trouble = None
        await until(lambda: ledger.total("a").in_flight == 1)
        watching.cancel()

    run(main())
    assert len([message for message in log if "cannot share the use of API keys" in message]) == 1


def test_a_board_that_hangs_does_not_end_the_watch() -> None:
    async def main() -> None:
        handle, ledger = Handle(), Ledger()
        handle.exchange.trouble = asyncio.Event()
        watching = asyncio.ensure_future(UsageClient(handle, ledger, OFTEN_S).watch())
        await until(lambda: handle.exchange.calls == 1)
        handle.exchange.trouble.set()
        await until(lambda: handle.exchange.calls > 2)
        watching.cancel()

    run(main())
