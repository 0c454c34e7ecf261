"""What is counted of instances: the real manager and store, applications in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployments.instances.live import Why
from deployments.instances.metrics import Observer, Outcome, State
from tests.aio import run
from tests.instance_fakes import FAKE, Bench, MemoryApps


class Noted:
    """A Recorder that remembers."""

    def __init__(self) -> None:
        self.counts: dict[State, int] = {}
        self.starts: list[tuple[str, Outcome]] = []
        self.took_s: list[float] = []
        self.ends: list[tuple[str, Why]] = []

    def holds(self, counts: Mapping[State, int]) -> None:
        self.counts = dict(counts)

    def started(self, model: str, outcome: Outcome, took_s: float) -> None:
        self.starts.append((model, outcome))
        self.took_s.append(took_s)

    def ended(self, model: str, why: Why) -> None:
        self.ends.append((model, why))


class WatchedBench(Bench):
    """A Bench whose observer looks after each step."""

    def __init__(self, folder: Path, apps: MemoryApps | None = None, **settings: Any) -> None:
        super().__init__(folder, apps, **settings)
        self.noted = Noted()
        self.observer = Observer(self.inventory, self.noted, lambda: self.clock_s)

    async def step(self) -> None:
        self.observer.look()
        await super().step()
        self.observer.look()

    def states(self) -> dict[State, int]:
        return {state: count for state, count in self.noted.counts.items() if count}


def test_a_start_and_a_stop(tmp_path: Path) -> None:
    async def main() -> None:
        bench = WatchedBench(tmp_path)
        await bench.manager.create("a", FAKE)
        await bench.step()
        assert bench.states() == {"stopped": 1}
        bench.inventory.want("a")
        await bench.settle("a", "running", ready=True)
        assert bench.noted.starts == [("a", "ready")]
        assert bench.noted.took_s[0] > 0
        assert bench.states() == {"running": 1}
        await bench.manager.stop("a")
        await bench.settle("a", "stopped")
        assert bench.noted.ends == [("a", "asked")]
        assert bench.noted.starts == [("a", "ready")]
        bench.close()

    run(main())


def test_a_start_that_fails(tmp_path: Path) -> None:
    async def main() -> None:
        bench = WatchedBench(tmp_path)
        bench.apps.bad.add(1)
        await bench.manager.create("a", {**FAKE, "backend_options": {"seed": 1}})
        bench.inventory.want("a")
        await bench.settle("a", "failed")
        assert bench.noted.starts == [("a", "failed")]
        assert bench.noted.ends == [("a", "crashed")]
        bench.close()

    run(main())


def test_a_start_that_its_owner_gives_up(tmp_path: Path) -> None:
    async def main() -> None:
        bench = WatchedBench(tmp_path)
        bench.apps.is_held = True
        await bench.manager.create("a", FAKE)
        bench.inventory.want("a")
        await bench.step()
        assert bench.states() == {"starting": 1}
        await bench.manager.stop("a")
        await bench.step()
        assert bench.noted.starts == [("a", "given_up")]
        bench.close()

    run(main())


def test_one_that_makes_room_for_another(tmp_path: Path) -> None:
    async def main() -> None:
        bench = WatchedBench(tmp_path, max_running_instances=1)
        for name in ("a", "b"):
            await bench.manager.create(name, FAKE)
        bench.inventory.want("a")
        await bench.settle("a", "running", ready=True)
        bench.report()
        bench.manager._demand("b", is_urgent=True)
        await bench.settle("b", "running", ready=True)
        assert bench.noted.ends == [("a", "evicted")]
        assert bench.noted.starts == [("a", "ready"), ("b", "ready")]
        bench.close()

    run(main())


def test_what_a_new_manager_finds_running_is_no_start(tmp_path: Path) -> None:
    async def main() -> None:
        bench = WatchedBench(tmp_path)
        await bench.manager.create("a", FAKE)
        bench.inventory.want("a")
        await bench.settle("a", "running", ready=True)
        bench.close()
        successor = WatchedBench(tmp_path, bench.apps)
        await successor.settle("a", "running", ready=True)
        assert successor.noted.starts == []
        assert successor.states() == {"running": 1}
        successor.close()

    run(main())
