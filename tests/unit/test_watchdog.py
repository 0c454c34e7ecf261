import asyncio
from dataclasses import dataclass, field

import pytest

from deployments.engine.watchdog import Watchdog
from tests.aio import run, settle


@dataclass
class Engine:
    """An engine whose steps the test makes."""

    unfinished: int = 0
    stepped_s: float = 0.0
    probes: int = 0
    token: asyncio.Event = field(default_factory=asyncio.Event)

    def num_unfinished(self) -> int:
        return self.unfinished

    def last_step_s(self) -> float:
        return self.stepped_s

    async def probe(self) -> None:
        self.probes += 1
        self.unfinished += 1
        await self.token.wait()
        self.unfinished -= 1


@dataclass
class Clock:
    time_s: float = 0.0

    def __call__(self) -> float:
        return self.time_s


def make(**engine: float) -> tuple[Watchdog, Engine, Clock]:
    clock, subject = Clock(), Engine(**engine)  # type: ignore[arg-type]
    return Watchdog(subject, interval_s=30, hung_after_s=120, now_s=clock), subject, clock


def test_work_without_a_step_is_a_hang() -> None:
    watchdog, _, clock = make(unfinished=1)
    for clock.time_s in (0, 60, 119):
        watchdog.look()
        assert not watchdog.is_hung
    clock.time_s = 120
    watchdog.look()
    assert watchdog.is_hung


def test_an_engine_that_makes_steps_is_only_busy() -> None:
    watchdog, engine, clock = make(unfinished=500)
    for clock.time_s in range(0, 10_000, 100):
        engine.stepped_s = clock.time_s - 90
        watchdog.look()
    assert not watchdog.is_hung


def test_work_after_a_long_rest_has_its_whole_time() -> None:
    watchdog, engine, clock = make()
    clock.time_s = 20
    watchdog.look()
    clock.time_s = 10_000
    engine.unfinished = 1
    watchdog.look()
    clock.time_s += 100
    watchdog.look()
    assert not watchdog.is_hung
    clock.time_s += 20
    watchdog.look()
    assert watchdog.is_hung


def test_an_idle_engine_is_asked_for_a_token() -> None:
    async def main() -> None:
        watchdog, engine, clock = make()
        clock.time_s = 29
        watchdog.look()
        await settle()
        assert engine.probes == 0
        clock.time_s = 30
        for _ in range(3):
            watchdog.look()
            await settle()
        assert engine.probes == 1
        clock.time_s = 151
        watchdog.look()
        assert watchdog.is_hung
        engine.token.set()
        await settle()

    run(main())


def test_callers_share_a_probe() -> None:
    async def main() -> None:
        watchdog, engine, _ = make()
        asked = [asyncio.create_task(watchdog.probe(30)) for _ in range(5)]
        await settle()
        engine.token.set()
        assert await asyncio.gather(*asked) == [0.0] * 5
        assert engine.probes == 1

    run(main())


def test_a_probe_that_takes_too_long_goes_on_for_others() -> None:
    async def main() -> None:
        watchdog, engine, _ = make()
        with pytest.raises(TimeoutError):
            await watchdog.probe(0.01)
        engine.token.set()
        await watchdog.probe(30)
        assert engine.probes == 1

    run(main())


def test_time_in_which_this_process_stood_still_does_not_count() -> None:
    async def main() -> None:
        watchdog, _, clock = make(unfinished=1)
        naps_s = [3.0] * 20 + [3600.0] + [3.0] * 30

        async def sleep(duration_s: float) -> None:
            if not naps_s:
                raise EOFError
            clock.time_s += naps_s.pop(0)

        with pytest.raises(EOFError):
            await watchdog.watch(sleep)
        assert not watchdog.is_hung

    run(main())


def test_it_stops_looking_at_a_hang() -> None:
    async def main() -> None:
        watchdog, _, clock = make(unfinished=1)
        naps = []

        async def sleep(duration_s: float) -> None:
            naps.append(duration_s)
            clock.time_s += duration_s

        await watchdog.watch(sleep)
        assert watchdog.is_hung
        assert set(naps) == {3.0}

    run(main())
