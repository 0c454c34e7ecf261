"""The pool of actors on real Ray: queues, time-outs, kills, and that it is whole again afterwards."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import psutil
import pytest
import ray

from config.guided import CompileLimits, GuidedSettings
from config.models import PROJECT_ROOT
from deployments.errors import EngineUnavailableError, OverloadedError
from deployments.guided.artifact import spec_key, unpack
from deployments.guided.pool import Pool
from deployments.guided_types import Compiled, GrammarSpec, Refused, Verdict, Vocabulary
from tests.harness import Server, eventually
from tests.vocabularies import PERSON, SLOW, bytes_vocabulary, optional_properties

HANGS_AFTER_S = 240
PREFIX = "ENDED "
PASSED = "passed"
SCENARIOS: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}


def scenario(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    """Have a test run in a process that is connected to the cluster, which the one of pytest cannot be."""
    SCENARIOS[test.__name__] = test
    return test


def settings(timeout_s: float = 60, **fields: Any) -> GuidedSettings:
    limits = CompileLimits(timeout_s=timeout_s, patience_s=600, max_mask_ms=10_000, max_walk_ms=100_000)
    return GuidedSettings.model_validate({"num_actors": 1, "compilation": limits, "wait_timeout_s": 120, **fields})


@contextlib.asynccontextmanager
async def pooling(settings: GuidedSettings) -> AsyncIterator[Pool]:
    pool = Pool(settings)
    try:
        yield pool
    finally:
        pool.close()


async def verdict(pool: Pool, spec: GrammarSpec, vocabulary: Vocabulary | None = None) -> Verdict:
    vocabulary = vocabulary or bytes_vocabulary()
    return await pool.compile(spec, spec_key(spec, vocabulary.fingerprint), vocabulary)


def word(length: int) -> GrammarSpec:
    return GrammarSpec("regex", f"[a-z]{{{length}}}")


async def processes(pool: Pool) -> list[tuple[psutil.Process, psutil.Process]]:
    """Return each actor's process, and the one that forks for it."""
    pids = [await actor.pids.remote() for actor in pool._actors]
    return [(psutil.Process(actor), psutil.Process(forker)) for actor, forker in pids]


async def until(condition: Callable[[], Any], what: str) -> Any:
    return await asyncio.to_thread(eventually, condition, what)


async def begun(pool: Pool, spec: GrammarSpec) -> tuple[asyncio.Task[Verdict], psutil.Process, psutil.Process]:
    """Have a pool of one work on a constraint; return that, and the processes of the actor and of the job."""
    await verdict(pool, PERSON)  # the actor is there, and knows the vocabulary
    ((actor, forker),) = await processes(pool)
    await until(lambda: not forker.children(), "the first job's process has ended")
    asking = asyncio.create_task(verdict(pool, spec))
    (job,) = await until(forker.children, "the job runs")
    return asking, actor, job


@scenario
async def constraints_are_compiled_at_once_and_all_actors_are_idle_again() -> None:
    async with pooling(settings(num_actors=2)) as pool:
        verdicts = await asyncio.gather(*(verdict(pool, word(length)) for length in range(1, 9)))
        assert [type(found) for found in verdicts] == [Compiled] * 8
        assert [found.key for found in verdicts] == [
            spec_key(word(length), bytes_vocabulary().fingerprint) for length in range(1, 9)
        ]
        await until(lambda: pool.num_idle == pool.size == 2, "both are idle")


@scenario
async def a_large_artifact_arrives_whole() -> None:
    async with pooling(settings()) as pool:
        compiled = await verdict(pool, optional_properties(60))
        assert isinstance(compiled, Compiled)
        assert len(unpack(compiled.artifact).text) > 2**16


@scenario
async def what_nobody_can_have_is_a_verdict() -> None:
    async with pooling(settings(timeout_s=1)) as pool:
        refused = await verdict(pool, SLOW)
        assert isinstance(refused, Refused)
        assert refused.is_costly
        assert "1 s (compilation.timeout_s)" in refused.message
        assert isinstance(await verdict(pool, PERSON), Compiled)


@scenario
async def an_actor_that_is_killed_costs_one_retry_and_is_replaced() -> None:
    async with pooling(settings(timeout_s=3)) as pool:
        asking, actor, job = await begun(pool, SLOW)
        actor.kill()
        await until(lambda: not job.is_running(), "the job ends with its actor")
        assert isinstance(await asking, Refused)
        assert isinstance(await verdict(pool, PERSON), Compiled)
        assert pool.size == 1


@scenario
async def an_actor_that_is_killed_twice_is_unavailable() -> None:
    async with pooling(settings()) as pool:
        asking, actor, _ = await begun(pool, SLOW)
        (first,) = pool._actors
        actor.kill()
        await until(lambda: pool._actors and first not in pool._actors, "there is another actor")
        ((another, forker),) = await processes(pool)
        await until(forker.children, "the job runs again")
        another.kill()
        with pytest.raises(EngineUnavailableError, match="twice"):
            await asking
        assert isinstance(await verdict(pool, PERSON), Compiled)


@scenario
async def a_process_that_forks_and_is_killed_costs_one_retry_on_the_same_actor() -> None:
    async with pooling(settings(timeout_s=3)) as pool:
        asking, actor, _ = await begun(pool, SLOW)
        ((_, forker),) = await processes(pool)
        forker.kill()
        assert isinstance(await asking, Refused)
        assert [same.pid for same, _ in await processes(pool)] == [actor.pid]


@scenario
async def an_idle_actor_that_died_is_replaced_before_it_costs_anything() -> None:
    async with pooling(settings(num_actors=2)) as pool:
        await verdict(pool, PERSON)
        await until(lambda: pool.size == 2, "both are there")
        actors = [actor for actor, _ in await processes(pool)]
        for actor in actors:
            actor.kill()
        await until(lambda: not any(actor.is_running() for actor in actors), "they are dead")
        assert isinstance(await verdict(pool, PERSON), Compiled)
        await until(lambda: pool.num_idle == pool.size == 2, "the pool is whole again")


@scenario
async def who_leaves_ends_the_work_and_the_actor_stays() -> None:
    async with pooling(settings()) as pool:
        asking, actor, job = await begun(pool, SLOW)
        asking.cancel()
        await until(lambda: not job.is_running(), "the job is killed")
        await until(lambda: pool.num_idle == 1, "the actor is idle")
        assert isinstance(await verdict(pool, PERSON), Compiled)
        assert [same.pid for same, _ in await processes(pool)] == [actor.pid]


@scenario
async def a_full_queue_and_a_long_wait_are_refused() -> None:
    async with pooling(settings(max_waiting=1, wait_timeout_s=2)) as pool:
        asking, _, _ = await begun(pool, SLOW)
        waiting = asyncio.create_task(verdict(pool, PERSON))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="max_waiting"):
            await verdict(pool, PERSON)
        with pytest.raises(EngineUnavailableError, match="2 s \\(wait_timeout_s\\)"):
            await waiting
        asking.cancel()


@scenario
async def who_waits_may_leave() -> None:
    async with pooling(settings(max_waiting=1)) as pool:
        asking, _, _ = await begun(pool, SLOW)
        waiting = asyncio.create_task(verdict(pool, PERSON))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        another = asyncio.create_task(verdict(pool, PERSON))  # there is room again
        asking.cancel()
        assert isinstance(await another, Compiled)
        await until(lambda: pool.num_idle == 1, "the actor is idle")


@scenario
async def after_a_storm_the_pool_is_whole() -> None:
    async with pooling(settings(timeout_s=1, num_actors=2)) as pool:
        await verdict(pool, PERSON)
        storm = [asyncio.create_task(verdict(pool, hostile)) for hostile in (SLOW, PERSON, SLOW, SLOW, word(3))]
        for actor, _ in (await processes(pool))[:1]:
            actor.kill()
        storm[3].cancel()
        ended = await asyncio.gather(*storm, return_exceptions=True)
        assert {type(end) for end in ended} <= {Refused, Compiled, asyncio.CancelledError}
        await until(lambda: pool.num_idle == pool.size == 2, "both are idle")
        assert isinstance(await verdict(pool, PERSON), Compiled)


@scenario
async def without_any_actor_it_is_unavailable() -> None:
    nowhere = settings(actor_options={"resources": {"nowhere": 1}}, wait_timeout_s=2)
    async with pooling(nowhere) as pool:
        with pytest.raises(EngineUnavailableError, match="wait_timeout_s"):
            await verdict(pool, PERSON)


@scenario
async def a_vocabulary_that_cannot_be_read_is_unavailable() -> None:
    async with pooling(settings()) as pool:
        with pytest.raises(EngineUnavailableError, match="vocabulary"):
            await verdict(pool, PERSON, Vocabulary("broken", "no JSON", "", 1, 0))
        assert isinstance(await verdict(pool, PERSON), Compiled)


@scenario
async def a_closed_pool_ends_what_it_works_on() -> None:
    async with pooling(settings()) as pool:
        asking, actor, job = await begun(pool, SLOW)
        waiting = asyncio.create_task(verdict(pool, PERSON))
        await asyncio.sleep(0)
        pool.close()
        for one in (asking, waiting):
            with pytest.raises(EngineUnavailableError):
                await one
        await until(lambda: not actor.is_running() and not job.is_running(), "nothing is left")


@pytest.fixture(scope="module")
def connected(server: Server) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", __name__, server.cluster.address]
    environment = {**os.environ, **server.cluster.environment}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment, text=True, stdin=pipe, stdout=pipe) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("name", SCENARIOS)
def test_pool(connected: subprocess.Popen[str], name: str) -> None:
    assert connected.stdin is not None
    assert connected.stdout is not None
    connected.stdin.write(name + "\n")
    connected.stdin.flush()
    endings = (json.loads(line.removeprefix(PREFIX)) for line in connected.stdout if line.startswith(PREFIX))
    assert next(endings, "the process ended") == PASSED


def main() -> None:
    """Run scenarios whose names come in, and say how each ended."""
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error")
    for line in sys.stdin:
        ending = PASSED
        try:
            asyncio.run(asyncio.wait_for(SCENARIOS[line.strip()](), HANGS_AFTER_S))
        except BaseException:
            ending = traceback.format_exc()
        print(PREFIX + json.dumps(ending), flush=True)


if __name__ == "__main__":
    main()
