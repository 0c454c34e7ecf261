"""Instances as applications of real Serve: what is deployed, updated, deleted and killed, and what is seen of it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest
import ray

from config.instances import InstanceOptions, InstanceSettings
from config.models import PROJECT_ROOT
from deployments.app import build_model
from deployments.engine.client import EngineClient
from deployments.errors import EngineUnavailableError, InsufficientResourcesError, InvalidOptionsError
from deployments.instances.lifecycle import ServeApps
from deployments.instances.services import App, AppState
from deployments.serve_details import Replica
from deployments.types import HttpRequest
from tests.faults import MESSAGES
from tests.harness import PLANES, Server, eventually
from tests.instances import SOON

planes = PLANES[:1]
"""Instances are deployed the same way whichever plane serves the models of the YAML."""
HANGS_AFTER_S = 240
PREFIX = "ENDED "
PASSED = "passed"
SETTINGS = InstanceSettings(defaults={"num_cpus": 0.1}, deployment=SOON)
NOWHERE = InstanceOptions(backend_options={"model": "/nowhere/at/all"})
SCENARIOS: dict[str, Callable[[ServeApps], Coroutine[Any, Any, None]]] = {}


def scenario(
    test: Callable[[ServeApps], Coroutine[Any, Any, None]],
) -> Callable[[ServeApps], Coroutine[Any, Any, None]]:
    """Have a test run in a process that is connected to the cluster, which the one of pytest cannot be."""
    SCENARIOS[test.__name__] = test
    return test


def fake(autoscaling: dict[str, Any] | None = None, **backend_options: Any) -> InstanceOptions:
    return InstanceOptions(backend_type="fake", backend_options=backend_options, autoscaling=autoscaling or {})


async def until(read: Callable[[], Awaitable[Any]], what: str) -> Any:
    async with asyncio.timeout(HANGS_AFTER_S / 3):
        while not (value := await read()):
            await asyncio.sleep(0.1)
    assert value, what
    return value


async def until_state(apps: ServeApps, name: str, *states: AppState, **fields: Any) -> App:
    """Look, as the manager does, until an instance is so."""

    async def read() -> App | None:
        app = (await apps.states()).get(name, App("absent"))
        return (
            app if app.state in states and all(getattr(app, key) == wanted for key, wanted in fields.items()) else None
        )

    found: App = await until(read, f"{name} is {states}")
    return found


async def replicas(apps: ServeApps, name: str) -> list[Replica]:
    application = (await apps._applications())[name]
    return [one for one in application.deployments["Engine"].replicas if one.state == "RUNNING"]


async def kill(apps: ServeApps, name: str) -> None:
    client = await apps._in_thread(__import__("ray.serve.context", fromlist=["_"])._get_global_client)
    details = await client._controller.get_serve_instance_details.remote()
    for one in details["applications"][f"model-{name}"]["deployments"]["Engine"]["replicas"]:
        os.kill(one["pid"], signal.SIGKILL)


@contextlib.asynccontextmanager
async def stream(name: str, max_tokens: int) -> AsyncIterator[Any]:
    """Open a stream of an instance; what has been read of it is no more than its beginning."""
    body = {"model": name, "messages": MESSAGES, "max_tokens": max_tokens, "stream": True}
    headers = ((b"content-type", b"application/json"),)
    request = HttpRequest("POST", "/v1/chat/completions", b"", headers, json.dumps(body).encode())
    response = await EngineClient(f"model-{name}").open(request)
    assert response.head.status == 200
    try:
        await anext(response)
        yield response
    finally:
        response.cancel()


async def rest_of(response: Any) -> str:
    return b"".join([chunk async for chunk in response]).decode()


@contextlib.asynccontextmanager
async def running(apps: ServeApps, name: str, options: InstanceOptions) -> AsyncIterator[Replica]:
    """Run an instance until the block ends, and have it gone then; yields its replica."""
    await apps.run(name, options)
    try:
        await until_state(apps, name, "running", deploying=False)
        (replica,) = await replicas(apps, name)
        yield replica
    finally:
        await apps.delete(name)
        await until_state(apps, name, "absent")


@scenario
async def the_same_options_again_change_nothing(apps: ServeApps) -> None:
    async with running(apps, "same", fake()) as before:
        await apps.run("same", fake())
        other = ServeApps(SETTINGS, build_model)  # as after a restart of the process
        await other.run("same", fake())
        await other.run("same", fake({"min_replicas": 1, "max_replicas": 2}))
        app = await until_state(other, "same", "running", deploying=False)
        assert [one.id for one in await replicas(apps, "same")] == [before.id]
        assert (app.num_starts, app.deploy_failed) == (1, False)


@scenario
async def an_update_rolls_and_loses_no_stream(apps: ServeApps) -> None:
    async with running(apps, "rolled", fake(itl_s=0.02)) as before, stream("rolled", 400) as response:
        await apps.run("rolled", fake(itl_s=0.02, seed=7))
        app = (await apps.states())["rolled"]
        assert (app.state, app.deploying) == ("running", True)
        app = await until_state(apps, "rolled", "running", deploying=False)
        (after,) = await replicas(apps, "rolled")
        assert after.id != before.id
        assert "[DONE]" in await rest_of(response)
        assert app.num_starts == 1


@scenario
async def a_bad_update_leaves_the_old_one_and_going_back_heals(apps: ServeApps) -> None:
    async with running(apps, "healed", fake(itl_s=0.02)) as before, stream("healed", 1000) as response:
        await apps.run("healed", NOWHERE)
        app = await until_state(apps, "healed", "running", deploy_failed=True)
        assert "Traceback" in app.message
        assert "/nowhere/at/all" in app.message
        assert [one.id for one in await replicas(apps, "healed")] == [before.id]
        assert before.id in await apps.log("healed")
        await apps.run("healed", fake(itl_s=0.02))
        app = await until_state(apps, "healed", "running", deploy_failed=False, deploying=False)
        assert [one.id for one in await replicas(apps, "healed")] == [before.id]
        assert app.num_starts == 1
        assert "[DONE]" in await rest_of(response)


@scenario
async def going_back_is_not_refused_when_nothing_is_free(apps: ServeApps) -> None:
    large = fake()
    large = large.model_copy(update={"settings": {"num_cpus": await free_cpus() * 0.6}})
    async with running(apps, "back", large) as before:
        with pytest.raises(EngineUnavailableError, match="CPU"):
            await apps.run("back", large.model_copy(update={"backend_options": {"seed": 1}}))
        await apps.run("back", NOWHERE)
        await until_state(apps, "back", "running", deploy_failed=True)
        await apps.run("back", large)
        await until_state(apps, "back", "running", deploy_failed=False, deploying=False)
        assert [one.id for one in await replicas(apps, "back")] == [before.id]


async def free_cpus() -> float:
    return float((await asyncio.to_thread(ray.available_resources)).get("CPU", 0))


@scenario
async def a_deleted_one_ends_its_streams_first(apps: ServeApps) -> None:
    async with running(apps, "ended", fake(itl_s=0.02)), stream("ended", 200) as response:
        await apps.delete("ended")
        assert (await apps.states())["ended"].state == "deleting"
        assert await apps.log("ended") == ""
        assert "[DONE]" in await rest_of(response)
        await until_state(apps, "ended", "absent")
        await apps.delete("ended")


@scenario
async def one_that_is_still_ending_can_be_run_again(apps: ServeApps) -> None:
    async with running(apps, "again", fake(itl_s=0.02)) as before, stream("again", 500) as response:
        await apps.delete("again")
        await apps.run("again", fake(itl_s=0.02))
        app = await until_state(apps, "again", "running")
        assert [one.id for one in await replicas(apps, "again")] != [before.id]
        assert app.num_starts == 1
        assert "[DONE]" in await rest_of(response)


@scenario
async def one_that_loads_can_be_read_and_deleted(apps: ServeApps) -> None:
    await apps.run("loading", fake(start_s=3600))
    app = await until_state(apps, "loading", "starting")
    assert (app.deploying, app.num_starts) == (True, 1)

    async def read() -> str:
        await apps.states()
        text = await apps.log("loading")
        return text if "Started" in text else ""

    assert "model-loading_Engine" in await until(read, "its replica has a log")
    await apps.delete("loading")
    await until_state(apps, "loading", "absent")


@scenario
async def a_crash_is_seen_and_its_log_is_there(apps: ServeApps) -> None:
    async with running(apps, "killed", fake(start_s=2)) as before:
        await kill(apps, "killed")
        app = await until_state(apps, "killed", "starting")
        assert app.num_starts == 2
        assert "health check failed" in app.message
        app = await until_state(apps, "killed", "running")
        assert (app.num_starts, app.deploying) == (2, False)
        assert f"replica {before.id}" in await apps.log("killed")
        await kill(apps, "killed")
        await until_state(apps, "killed", "running", num_starts=3)


@scenario
async def scaling_is_no_crash(apps: ServeApps) -> None:
    quick = {"target_ongoing_requests": 1, "upscale_delay_s": 0.1, "downscale_delay_s": 0.1, "look_back_period_s": 2}
    two = fake({"min_replicas": 1, "max_replicas": 2, **quick}, itl_s=0.02)
    async with running(apps, "scaled", two), stream("scaled", 300) as one, stream("scaled", 300) as other:
        await until(lambda: has_replicas(apps, "scaled", 2), "there are two")
        await asyncio.gather(rest_of(one), rest_of(other))
        await until(lambda: has_replicas(apps, "scaled", 1), "one is left")
        assert (await apps.states())["scaled"].num_starts == 1


async def has_replicas(apps: ServeApps, name: str, count: int) -> bool:
    await apps.states()
    return len(await replicas(apps, name)) == count


@scenario
async def one_that_cannot_load_says_why_and_is_tried_again_when_run_again(apps: ServeApps) -> None:
    try:
        for _ in range(2):
            await apps.run("bad", NOWHERE)
            app = await until_state(apps, "bad", "failed")
            assert "Traceback" in app.message
            assert "/nowhere/at/all" in app.message
            assert app.deploy_failed
            assert "vLLM" in await apps.log("bad")
        await apps.run("bad", fake())
        app = await until_state(apps, "bad", "running", deploying=False)
        assert app.num_starts == 1
    finally:
        await apps.delete("bad")
        await until_state(apps, "bad", "absent")


@scenario
async def what_has_no_room_is_refused(apps: ServeApps) -> None:
    huge = InstanceOptions(backend_type="fake", settings={"num_cpus": 1000})
    with pytest.raises(InsufficientResourcesError, match="needs 1000 CPUs, the cluster has "):
        await apps.run("huge", huge)
    fat = {"model": "config/demo_model", "kv_cache_memory_bytes": 2**50}
    with pytest.raises(InsufficientResourcesError, match="GiB of memory, the machine has "):
        await apps.run("huge", InstanceOptions(backend_options=fat))
    assert "huge" not in await apps.states()


@scenario
async def what_is_on_its_way_has_its_room(apps: ServeApps) -> None:
    half = InstanceOptions(backend_type="fake", settings={"num_cpus": await free_cpus() * 0.6})
    try:
        await apps.run("first", half)
        with pytest.raises(EngineUnavailableError, match=r"CPU.*, free is ") as refused:
            await apps.run("second", half)
        assert refused.value.retry_after_s
        await until_state(apps, "first", "running")
        with pytest.raises(EngineUnavailableError, match=r"CPU.*, free is "):
            await apps.run("second", half)
    finally:
        await apps.delete("first")
        await until_state(apps, "first", "absent")
    await until(lambda: runs(apps, "second", half), "there is room again")
    await apps.delete("second")
    await until_state(apps, "second", "absent")


async def runs(apps: ServeApps, name: str, options: InstanceOptions) -> bool:
    with contextlib.suppress(EngineUnavailableError):
        await apps.run(name, options)
        return True
    return False


@scenario
async def what_cannot_be_built_is_refused(apps: ServeApps) -> None:
    for options in (
        fake({"min_replicas": 3, "max_replicas": 2}),
        fake({"no_such_field": 1}),
        InstanceOptions(settings={"request_format": "{% if %}"}),
        InstanceOptions(backend_options={"tensor_parallel_size": "many"}, settings={"device": "gpu"}),
    ):
        with pytest.raises(InvalidOptionsError):
            await apps.check("wrong", options)
        with pytest.raises(InvalidOptionsError):
            await apps.run("wrong", options)


@scenario
async def models_of_the_yaml_are_told_apart(apps: ServeApps) -> None:
    async with running(apps, "own", fake()):
        declared = await apps.declared()
        assert declared["fast"] == {"name": "fast", "backend": "fake", "fake": {}, "num_cpus": 0.1}
        assert "own" not in declared
        assert {"fast", "own"} <= (await apps.states()).keys()


@scenario
async def survivor_begins(apps: ServeApps) -> None:
    await apps.run("survivor", fake())
    await until_state(apps, "survivor", "running")


@scenario
async def survivor_ends(apps: ServeApps) -> None:
    await apps.delete("survivor")
    await until_state(apps, "survivor", "absent")


@pytest.fixture(scope="module")
def connected(server: Server) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", __name__, server.cluster.address]
    environment = {**os.environ, **server.cluster.environment}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, text=True, stdin=pipe, stdout=pipe) as process:
        yield process
        process.kill()


def run(connected: subprocess.Popen[str], name: str) -> None:
    assert connected.stdin is not None
    assert connected.stdout is not None
    connected.stdin.write(name + "\n")
    connected.stdin.flush()
    endings = (json.loads(line.removeprefix(PREFIX)) for line in connected.stdout if line.startswith(PREFIX))
    ending = next(endings, "the process ended")
    assert ending == PASSED, ending


@pytest.mark.parametrize("name", [name for name in SCENARIOS if not name.startswith("survivor")])
def test_apps(connected: subprocess.Popen[str], name: str) -> None:
    run(connected, name)


def test_serve_deploy_leaves_instances_alone(server: Server, connected: subprocess.Popen[str]) -> None:
    run(connected, "survivor_begins")
    before = server.running("model-survivor")
    config = server.config
    fewer = {**config, "applications": [one for one in config["applications"] if one["name"] != "model-pensive"]}
    server.deploy(fewer)
    eventually(lambda: not server.replicas("model-pensive"), "the removed model is gone")
    server.deploy(config)
    eventually(lambda: server.running("model-pensive"), "it is back")
    assert server.running("model-survivor") == before != []
    run(connected, "survivor_ends")


def main() -> None:
    """Run scenarios whose names come in, and say how each ended."""
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error", namespace="serve")
    with asyncio.Runner() as runner:  # handles belong to one event loop
        for line in sys.stdin:
            ending = PASSED
            try:
                apps = ServeApps(SETTINGS, build_model)
                runner.run(asyncio.wait_for(SCENARIOS[line.strip()](apps), HANGS_AFTER_S))
            except BaseException:
                ending = traceback.format_exc()
            print(PREFIX + json.dumps(ending), flush=True)


if __name__ == "__main__":
    main()
