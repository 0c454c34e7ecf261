"""What is asked of instances, and what becomes of it: the real manager and store, applications in memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from deployments.errors import (
    InstanceDeclaredError,
    InstanceExistsError,
    InstanceNotFoundError,
    InstanceRunningError,
    InstanceStoppingError,
    InsufficientResourcesError,
    InternalError,
    InvalidNameError,
    InvalidOptionsError,
    MaxInstancesError,
    NoRoomError,
    ServingError,
    StartFailedError,
)
from deployments.instances.services import App
from tests.aio import run
from tests.instance_fakes import FAKE, Bench, MemoryApps


def fake(seed: int = 0, **options: Any) -> dict[str, Any]:
    return {**FAKE, "backend_options": {"seed": seed}, **options}


@contextlib.asynccontextmanager
async def polled(bench: Bench) -> AsyncIterator[Bench]:
    """Have the keeper look again and again while the block runs."""

    async def poll() -> None:
        while True:
            await bench.look()
            await asyncio.sleep(0)

    task = asyncio.create_task(poll())
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.wait({task})


def with_bench(folder: Path, main: Any, **settings: Any) -> None:
    """Run `main(bench)`."""
    bench = Bench(folder, **settings)
    try:
        run(main(bench))
    finally:
        bench.close()


async def started(bench: Bench, *names: str, **options: Any) -> None:
    for name in names:
        await bench.manager.create(name, fake(**options))
        async with polled(bench):
            await bench.manager.start(name)
        await bench.settle(name, "running", ready=True)


def test_from_its_creation_to_its_end(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        made = await bench.manager.create("one", fake(idle_timeout=5))
        assert (made.status, made.ready, made.options["idle_timeout"]) == ("stopped", False, 5)
        await bench.step()
        assert bench.apps.runs == []
        async with polled(bench):
            await bench.manager.start("one")
        await bench.settle("one", "running", ready=True)
        assert (await bench.manager.start("one")).status == "running"
        assert bench.apps.runs == ["one"]
        with pytest.raises(InstanceRunningError):
            await bench.manager.delete("one")
        assert (await bench.manager.stop("one")).status == "shutting_down"
        await bench.settle("one", "stopped")
        assert (await bench.manager.stop("one")).status == "stopped"
        await bench.manager.delete("one")
        with pytest.raises(InstanceNotFoundError):
            await bench.manager.get("one")

    with_bench(tmp_path, main)


def test_a_vllm_instance_has_the_command_that_says_it(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        made = await bench.manager.create("one", {"backend_options": {"model": "m"}})
        assert made.command == "vllm serve m"
        with pytest.raises(InvalidOptionsError):
            await bench.manager.create("two", {"backend_options": {}})

    with_bench(tmp_path, main)


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("", fake(), InvalidNameError),
        ("a b", fake(), InvalidNameError),
        ("..", fake(), InvalidNameError),
        ("a/b", fake(), InvalidNameError),
        ("one\n", fake(), InvalidNameError),
        ("x" * 51, fake(), InvalidNameError),
        ("taken", fake(), InstanceExistsError),
        ("declared", fake(), InstanceExistsError),
        ("one", {"backend_type": "llama_cpp"}, InvalidOptionsError),
        ("one", fake(max_restart=1), InvalidOptionsError),
        ("one", fake(max_restarts=-1), InvalidOptionsError),
        ("one", fake(idle_timeout="soon"), InvalidOptionsError),
        ("one", fake(environment={"A=B": "c"}), InvalidOptionsError),
        ("one", {**FAKE, "backend_options": {"speed": 1}}, InvalidOptionsError),
        ("one", {**FAKE, "backend_options": "--model x"}, InvalidOptionsError),
        ("one", fake(settings={"nonsense": 1}), InvalidOptionsError),
    ],
)
def test_what_cannot_be_defined(tmp_path: Path, name: str, options: dict[str, Any], error: type[ServingError]) -> None:
    async def main(bench: Bench) -> None:
        bench.apps.declared_models["declared"] = {"name": "declared"}
        await bench.manager.create("taken", fake())
        with pytest.raises(error):
            await bench.manager.create(name, options)
        assert set(bench.inventory.records) == {"taken"}

    with_bench(tmp_path, main)


def test_there_is_a_limit_of_definitions(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await bench.manager.create("one", fake())
        with pytest.raises(MaxInstancesError, match="max_instances"):
            await bench.manager.create("two", fake())

    with_bench(tmp_path, main, max_instances=1)


def test_models_of_the_yaml_are_listed_and_left_alone(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        bench.apps.declared_models["demo"] = {"name": "demo", "engine_args": {"model": "m"}}
        bench.apps.apps["demo"] = App("running")
        await bench.manager.create("one", fake())
        assert [(one.name, one.is_declared) for one in await bench.manager.list()] == [("demo", True), ("one", False)]
        assert (await bench.manager.get("demo")).ready
        for operation in (bench.manager.start, bench.manager.stop, bench.manager.restart, bench.manager.delete):
            with pytest.raises(InstanceDeclaredError):
                await operation("demo")
        await bench.step()
        assert "demo" in bench.apps.apps

    with_bench(tmp_path, main)


def test_requests_under_way_are_waited_for(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one")
        bench.in_flight["one"] = 1
        await bench.manager.stop("one")
        for _ in range(5):
            await bench.step()
        assert bench.inventory.view("one").status == "shutting_down"
        assert "one" in bench.apps.apps
        del bench.in_flight["one"]
        await bench.settle("one", "stopped")

    with_bench(tmp_path, main)


def test_nothing_ends_before_every_ingress_replica_knows(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one")
        await bench.manager.stop("one")
        await bench.keeper.poll()
        assert bench.inventory.live("one").task is None
        await bench.settle("one", "stopped")

    with_bench(tmp_path, main)


def test_a_start_calls_off_a_stop_that_still_waits(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one")
        bench.in_flight["one"] = 1
        await bench.manager.stop("one")
        await bench.manager.start("one")
        assert bench.inventory.view("one").ready
        del bench.in_flight["one"]
        await bench.step()
        assert bench.apps.runs == ["one"]

    with_bench(tmp_path, main)


def test_a_restart_ends_and_begins(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one")
        assert (await bench.manager.restart("one")).status == "restarting"
        await bench.settle("one", "running", ready=True)
        assert bench.apps.runs == ["one", "one"]

    with_bench(tmp_path, main)


def test_an_update_replaces_what_runs(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one")
        async with polled(bench):
            updated = await bench.manager.update("one", fake(seed=7))
        assert updated.options["backend_options"] == {"seed": 7}
        assert bench.apps.options["one"].backend_options == {"seed": 7}
        await bench.settle("one", "running", ready=True)

    with_bench(tmp_path, main)


def test_after_a_bad_update_the_old_one_serves_on(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one")
        bench.apps.bad.add(7)
        async with polled(bench):
            with pytest.raises(InvalidOptionsError, match="no"):
                await bench.manager.update("one", fake(seed=7))
        await bench.settle("one", "running", ready=True)
        assert bench.inventory.view("one").options["backend_options"] == {"seed": 0}
        assert bench.apps.options["one"].backend_options == {"seed": 0}
        with pytest.raises(InvalidOptionsError):
            await bench.manager.update("one", fake(nonsense=1))

    with_bench(tmp_path, main)


def test_an_update_that_the_cluster_cannot_hold_changes_nothing(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one")
        bench.clock_s += 10_000
        for error in (InsufficientResourcesError("needs 8 GPUs"), NoRoomError("needs 8 GPUs, free are 7")):
            bench.apps.refusals.append(error)
            async with polled(bench):
                with pytest.raises(InvalidOptionsError, match="8 GPUs"):
                    await bench.manager.update("one", fake(seed=7))
            await bench.settle("one", "running", ready=True)
            assert bench.inventory.view("one").options["backend_options"] == {"seed": 0}
            assert "one" in bench.apps.apps

    with_bench(tmp_path, main)


def test_an_update_that_comes_while_it_is_being_deployed_is_not_lost(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await bench.manager.create("one", fake())
        async with polled(bench):
            start = asyncio.create_task(bench.manager.start("one"))
            while not bench.apps.runs:
                await asyncio.sleep(0)
            assert not bench.apps.apps, "Serve has not answered yet"
            await bench.manager.update("one", fake(seed=8))
            await start
        assert bench.apps.options["one"].backend_options == {"seed": 8}

    with_bench(tmp_path, main)


def test_an_update_that_gets_not_ready_ends_and_the_old_one_serves_on(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one")
        bench.apps.is_held = True
        update = asyncio.create_task(bench.manager.update("one", fake(seed=7)))
        while not bench.apps.apps["one"].deploying:
            await bench.step()
        bench.clock_s += 51
        bench.apps.is_held = False
        async with polled(bench):
            with pytest.raises(InvalidOptionsError, match="start_timeout_s"):
                await update
        await bench.settle("one", "running", ready=True)
        assert bench.apps.options["one"].backend_options == {"seed": 0}

    with_bench(tmp_path, main, start_timeout_s=50)


def test_a_stop_overtakes_an_update(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one")
        bench.apps.is_held = True
        update = asyncio.create_task(bench.manager.update("one", fake(seed=7)))
        while not bench.apps.apps["one"].deploying:
            await bench.step()
        await bench.manager.stop("one")
        bench.apps.is_held = False
        await bench.settle("one", "stopped")
        await update
        updated = await bench.manager.update("one", fake(seed=8))
        assert updated.options["backend_options"] == {"seed": 8}

    with_bench(tmp_path, main)


def test_what_is_started_after_a_stop_and_an_update_has_the_new_options(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one")
        bench.in_flight["one"] = 1
        await bench.manager.stop("one")
        await bench.manager.update("one", fake(seed=7))
        await bench.manager.start("one")
        del bench.in_flight["one"]
        await bench.settle("one", "running", ready=True)
        assert bench.apps.options["one"].backend_options == {"seed": 7}

    with_bench(tmp_path, main)


def test_a_stop_that_comes_with_a_crash_is_a_stop(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one", restart_delay=0)
        bench.apps.apps["one"] = App("failed", "killed")
        bench.report()
        await bench.keeper.poll()
        await bench.manager.stop("one")
        await bench.settle("one", "stopped")
        assert bench.apps.runs == ["one"]

    with_bench(tmp_path, main)


def test_errors_of_ray_do_not_end_what_runs(tmp_path: Path) -> None:
    async def first(bench: Bench) -> None:
        await started(bench, "one")

    async def second(bench: Bench) -> None:
        bench.clock_s += 10_000
        for _ in range(3):
            await bench.step()
        assert bench.inventory.view("one").ready
        await bench.settle("one", "running", ready=True)

    apps = MemoryApps()
    with_bench(tmp_path, first, apps=apps)
    apps.refusals = [InternalError()] * 2
    with_bench(tmp_path, second, apps=apps)


def test_the_successor_of_a_manager_deletes_nothing_that_is_there(tmp_path: Path) -> None:
    """It has been asked before it has looked for the first time."""

    async def first(bench: Bench) -> None:
        await started(bench, "one")
        bench.in_flight["one"] = 1
        await bench.manager.stop("one")

    async def second(bench: Bench) -> None:
        with pytest.raises(InstanceRunningError):
            await bench.manager.delete("one")
        await bench.keeper.poll()
        bench.report()  # one ingress replica; another one may still use it
        await bench.keeper.poll()
        assert bench.inventory.live("one").task is None
        await bench.settle("one", "stopped")

    apps = MemoryApps()
    for main in (first, second):
        with_bench(tmp_path, main, apps=apps)


def test_a_model_of_the_yaml_that_takes_a_name_is_left_alone(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await bench.manager.create("one", fake())
        bench.apps.apps["one"] = App("running", is_declared=True)
        for _ in range(20):
            await bench.step()
        assert "one" in bench.apps.apps

    with_bench(tmp_path, main)


def test_a_crashed_one_without_room_is_started_by_the_request_that_needs_it(tmp_path: Path) -> None:
    async def first(bench: Bench) -> None:
        await started(bench, "a", "b", restart_delay=0)

    async def second(bench: Bench) -> None:
        for _ in range(3):
            await bench.step()
        bench.apps.apps["b"] = App("failed", "killed")
        await bench.settle("b", "restarting")
        async with polled(bench):
            await bench.manager.ensure("b")
        assert list(bench.apps.apps) == ["b"]

    apps = MemoryApps()
    for main, limit in ((first, None), (second, 1)):
        with_bench(tmp_path, main, apps=apps, max_running_instances=limit)


def test_ten_requests_start_it_once(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await bench.manager.create("one", fake())
        async with polled(bench):
            await asyncio.gather(*(bench.manager.ensure("one") for _ in range(10)))
        assert bench.apps.runs == ["one"]

    with_bench(tmp_path, main)


def test_who_waits_for_what_does_not_load_is_told_why(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        bench.apps.bad.add(7)
        await bench.manager.create("one", fake(seed=7))
        async with polled(bench):
            with pytest.raises(StartFailedError, match="no such model"):
                await bench.manager.ensure("one")
        await bench.settle("one", "failed")
        assert "no such model" in bench.inventory.view("one").message
        assert "Traceback" in await bench.manager.log("one", None)
        assert len((await bench.manager.log("one", 1)).splitlines()) == 1
        async with polled(bench):
            with pytest.raises(StartFailedError):
                await bench.manager.ensure("one")
        assert bench.apps.runs == ["one"]
        bench.apps.bad.clear()
        async with polled(bench):
            await bench.manager.start("one")
        await bench.settle("one", "running", ready=True)

    with_bench(tmp_path, main)


def test_while_its_owner_stops_it_requests_are_told_so(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one")
        bench.in_flight["one"] = 1
        await bench.manager.stop("one")
        with pytest.raises(InstanceStoppingError):
            await bench.manager.ensure("one")

    with_bench(tmp_path, main)


def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "a", "b")
        await bench.manager.create("c", fake())
        bench.inventory.live("b").last_request_s -= 100
        async with polled(bench):
            await bench.manager.ensure("c")
        assert set(bench.apps.apps) == {"a", "c"}
        assert bench.inventory.view("b").status == "stopped"

    with_bench(tmp_path, main, max_running_instances=2)


def test_one_place_goes_round_and_is_never_taken_twice(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        for name in "abc":
            await bench.manager.create(name, fake())
        async with polled(bench):
            for name in "abcabcab":
                await bench.manager.ensure(name)
                assert list(bench.apps.apps) == [name]
            await asyncio.gather(*(bench.manager.ensure(name) for name in "abc"))

    with_bench(tmp_path, main, max_running_instances=1)


def test_what_is_in_use_is_not_evicted_for_a_start_by_hand(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "a")
        await bench.manager.create("b", fake())
        bench.in_flight["a"] = 1
        bench.report()
        with pytest.raises(MaxInstancesError, match="max_running_instances: 1"):
            await bench.manager.start("b")
        assert bench.inventory.view("a").ready
        assert bench.inventory.view("b").status == "stopped"

    with_bench(tmp_path, main, max_running_instances=1)


def test_a_request_that_has_waited_long_has_the_busy_one_drained_not_cut(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "a")
        await bench.manager.create("b", fake())
        bench.in_flight["a"] = 1
        bench.report()
        async with polled(bench):
            waiting = asyncio.create_task(bench.manager.ensure("b"))
            while bench.inventory.view("a").status != "shutting_down":
                await asyncio.sleep(0)
            for _ in range(50):
                await asyncio.sleep(0)
            assert "a" in bench.apps.apps
            assert not waiting.done()
            del bench.in_flight["a"]
            await waiting
        assert list(bench.apps.apps) == ["b"]

    with_bench(tmp_path, main, max_running_instances=1)


def test_of_a_group_one_runs(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "a", "b", group="large")
        await started(bench, "c")
        assert set(bench.apps.apps) == {"b", "c"}

    with_bench(tmp_path, main)


def test_what_nobody_uses_is_stopped_and_a_request_starts_it_again(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one", idle_timeout=1)
        bench.inventory.live("one").last_request_s -= 61
        await bench.settle("one", "stopped")
        async with polled(bench):
            await bench.manager.ensure("one")
        assert bench.apps.runs == ["one", "one"]

    with_bench(tmp_path, main)


def test_zero_minutes_is_never(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one", idle_timeout=0)
        bench.inventory.live("one").last_request_s = 0.0
        await bench.step()
        assert bench.inventory.view("one").ready

    with_bench(tmp_path, main)


def test_a_crash_is_followed_by_restarts_until_there_were_enough(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one", max_restarts=2, restart_delay=60)
        for number in (1, 2):
            bench.apps.apps["one"] = App("failed", "killed by signal 9")
            await bench.settle("one", "restarting")
            for _ in range(5):
                await bench.step()
            assert bench.apps.runs == ["one"] * number
            bench.clock_s += 60
            await bench.settle("one", "running", ready=True)
        bench.apps.apps["one"] = App("failed", "killed by signal 9")
        await bench.settle("one", "failed")
        assert "after 2 restarts: killed by signal 9" in bench.inventory.view("one").message
        await bench.step()
        assert bench.apps.apps == {}

    with_bench(tmp_path, main)


def test_crashes_are_forgotten_when_it_has_run_for_long(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one", max_restarts=1, restart_delay=0)
        for _ in range(3):
            bench.apps.apps["one"] = App("starting")
            await bench.settle("one", "restarting")
            await bench.settle("one", "running", ready=True)
            bench.clock_s += 10_000
            await bench.step()
            await bench.step()
        assert bench.inventory.records["one"].num_restarts == 0

    with_bench(tmp_path, main)


def test_without_auto_restart_a_crash_is_the_end(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "one", auto_restart=False)
        bench.apps.apps["one"] = App("starting")
        await bench.settle("one", "failed")
        assert bench.apps.runs == ["one"]

    with_bench(tmp_path, main)


def test_what_does_not_get_ready_in_time_has_failed(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        bench.apps.is_held = True
        await bench.manager.create("one", fake())
        async with polled(bench):
            await bench.manager.start("one")
        bench.clock_s += 100
        await bench.step()
        bench.apps.is_held = False
        await bench.settle("one", "failed")
        assert "start_timeout_s" in bench.inventory.view("one").message

    with_bench(tmp_path, main, start_timeout_s=50)


def test_without_room_in_the_cluster_a_start_by_hand_says_what_is_missing(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await bench.manager.create("one", fake())
        for error in (InsufficientResourcesError("needs 2 GPUs"), NoRoomError("needs 2 GPUs, 1 is free")):
            bench.apps.refusals = [error] * 50
            async with polled(bench):
                with pytest.raises(type(error), match="2 GPUs"):
                    await bench.manager.start("one")
            bench.apps.refusals = []
            runs = len(bench.apps.runs)
            await bench.step()
            await bench.step()
            assert len(bench.apps.runs) == runs

    with_bench(tmp_path, main)


def test_without_room_in_the_cluster_a_request_waits_and_others_make_room(tmp_path: Path) -> None:
    async def main(bench: Bench) -> None:
        await started(bench, "a", "b", "c")
        await bench.manager.create("d", fake())
        bench.apps.refusals = [NoRoomError("no GPU is free")] * 10_000
        bench.apps.ends_slowly = True
        waiting = asyncio.create_task(bench.manager.ensure("d"))
        async with polled(bench):
            while "deleting" not in {app.state for app in bench.apps.apps.values()}:
                await asyncio.sleep(0)
            for _ in range(100):
                await asyncio.sleep(0)
            (gone,) = (name for name, app in bench.apps.apps.items() if app.state == "deleting")
            del bench.apps.apps[gone]
            bench.apps.refusals.clear()
            await waiting
        assert set(bench.apps.apps) == {"a", "b", "c", "d"} - {gone}

    with_bench(tmp_path, main)


async def create(bench: Bench) -> None:
    await bench.manager.create("one", fake())


async def start(bench: Bench) -> None:
    await bench.manager.start("one")


async def update(bench: Bench) -> None:
    await bench.manager.update("one", fake(seed=1))


async def bad_update(bench: Bench) -> None:
    bench.apps.bad.add(1)
    await update(bench)


async def stop(bench: Bench) -> None:
    await bench.manager.stop("one")


async def restart(bench: Bench) -> None:
    await bench.manager.restart("one")


async def delete(bench: Bench) -> None:
    await bench.manager.delete("one")


async def kill_after(num_turns: int, bench: Bench, operation: Coroutine[Any, Any, None]) -> None:
    """Run an operation with the keeper beside it, and cut off both after so many turns of the event loop."""
    async with polled(bench):
        task = asyncio.ensure_future(operation)
        for _ in range(num_turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    for name in bench.inventory.records:
        if running := bench.inventory.live(name).task:
            running.cancel()
            await asyncio.wait({running})


@pytest.mark.parametrize("num_turns", range(0, 40, 3))
@pytest.mark.parametrize(
    ("is_running", "operation", "seeds"),
    [
        (False, create, {0}),
        (False, start, {0}),
        (True, update, {0, 1}),
        (True, bad_update, {0}),
        (False, update, {0, 1}),
        (True, stop, {0}),
        (True, restart, {0}),
        (False, delete, {0}),
    ],
)
def test_killed_anywhere_its_successor_goes_on(
    tmp_path: Path, is_running: bool, operation: Any, seeds: set[int], num_turns: int
) -> None:
    """Definitions are the old or the new one, whole; what should run runs with them, what should not does not."""
    apps = MemoryApps()

    async def first(bench: Bench) -> None:
        if operation is not create:
            await bench.manager.create("one", fake())
        if is_running:
            async with polled(bench):
                await bench.manager.start("one")
            await bench.settle("one", "running", ready=True)
        await kill_after(num_turns, bench, operation(bench))

    async def second(bench: Bench) -> None:
        record = bench.inventory.records.get("one")
        if record is None:
            assert operation in (create, delete)
            assert apps.apps == {}
            return
        await bench.settle("one", "running" if record.wanted == "running" else "stopped")
        for _ in range(5):
            await bench.step()
        record = bench.inventory.records["one"]
        assert record.options.backend_options["seed"] in seeds
        assert record.previous is None
        if record.wanted == "running":
            assert apps.apps["one"].state == "running"
            assert apps.options["one"] == record.options
        else:
            assert apps.apps == {}

    with_bench(tmp_path, first, apps=apps)
    with_bench(tmp_path, second, apps=apps)


def test_after_the_whole_cluster_was_lost_what_ran_runs_again(tmp_path: Path) -> None:
    async def first(bench: Bench) -> None:
        await started(bench, "a", "b")
        await bench.manager.stop("b")
        await bench.settle("b", "stopped")

    async def second(bench: Bench) -> None:
        await bench.settle("a", "running", ready=True)
        assert list(bench.apps.apps) == ["a"]
        assert bench.inventory.view("b").status == "stopped"

    with_bench(tmp_path, first)
    with_bench(tmp_path, second)
