"""The front door at scale, without one: what falls into a window, who is at its limit, and what a cluster needs."""

import asyncio
import time
from dataclasses import replace

import pytest

from loadtests.scale import arrangement, pairs
from loadtests.scaling.scale_load import Answer, Endless, Window, within
from loadtests.scaling.scale_table import (
    ACTORS,
    CLIENT,
    CONTROLLER,
    HAPROXY,
    INGRESS,
    PARTS,
    REPLICA,
    REST,
    Cost,
    Step,
    cluster_table,
    cost_of,
    cpu_by_part,
    limit_of,
    steps_table,
)
from loadtests.servers.processes import Used, role_of
from tests.harness import application

WINDOW = Window(10.0, 10_000, 100, 0.05, 0.1, 0.02)
STEP = Step(1, 2, 64, 100, 1000.0, WINDOW, dict.fromkeys(PARTS, 1.0), INGRESS, 0.5, 0.8, 2, {INGRESS: 0.01})


def test_only_what_falls_into_the_window_counts() -> None:
    early = Answer(0.0, [0.5, 1.5, 2.5])
    inside = Answer(1.0, [1.25, 2.25, 3.25])
    unanswered = Answer(2.0, [])
    found = within([early, inside, unanswered], 1.0, 3.0)
    assert (found.tokens, found.requests, found.ttft_p50_s, found.itl_p99_s) == (4, 1, 0.25, 1.0)


async def watched() -> tuple[Window, str, str]:
    async def source(number: int, tokens: int, times_s: list[float]) -> None:
        await asyncio.sleep(0)
        times_s += [time.perf_counter()] * tokens

    load = Endless(source, streams=3, tokens=2, ramp_s=0.0)
    try:
        return await load.watch(0.05, lambda: "seen")
    finally:
        await load.stop()


def test_streams_go_on_until_they_are_stopped() -> None:
    window, before, after = asyncio.run(watched())
    assert (before, after) == ("seen", "seen")
    assert window.tokens >= window.requests > 3


async def failing() -> None:
    async def source(number: int, tokens: int, times_s: list[float]) -> None:
        raise ConnectionError("gone")

    load = Endless(source, 2, 2, 0.0)
    try:
        await load.watch(60.0, lambda: None)
    finally:
        await load.stop()


def test_a_failing_stream_ends_the_measurement() -> None:
    with pytest.raises(ConnectionError, match="gone"):
        asyncio.run(failing())


def test_processes_are_parts() -> None:
    commands = {
        "/opt/x/bin/haproxy -db -f a.cfg": HAPROXY,
        "ray::ServeReplica:gateway:Ingress": INGRESS,
        "ray::ServeReplica:model-fake:Engine": REPLICA,
        "ray::ProxyActor": ACTORS,
        "ray::HAProxyManager": ACTORS,
        "ray::ServeController": CONTROLLER,
        "ray::ServeReplica:gateway:Tokenizer": REST,
    }
    used = [Used(pid, role_of(command), command, 1.0) for pid, command in enumerate(commands)]
    found = cpu_by_part([*used, Used(99, "other", "python -m loadtests.scale", 2.0)], client_pid=99)
    assert found == {part: 2.0 if part in (ACTORS, CLIENT) else 1.0 for part in PARTS}


@pytest.mark.parametrize(
    ("step", "limit"),
    [
        (STEP, ""),
        (replace(STEP, busiest_cores=0.95), "ingress: one core is full"),
        (replace(STEP, cores=1.9), "all cores are full"),
        (replace(STEP, offered_per_s=2000.0), "waits, or others' processes"),
    ],
)
def test_what_held_a_step_up(step: Step, limit: str) -> None:
    assert limit_of(step) == limit


def test_requests_and_tokens_are_told_apart() -> None:
    def step(requests: int, tokens: int) -> Step:
        window = replace(WINDOW, requests=requests, tokens=tokens)
        return replace(STEP, window=window, cpu_s={INGRESS: requests * 1e-3 + tokens * 1e-4 + 0.1})

    found = cost_of(INGRESS, step(1000, 8000), step(40, 10_000))
    assert [found.request_us, found.token_us] == pytest.approx([1000.0, 100.0])


def test_a_cost_is_never_negative() -> None:
    short = replace(STEP, window=replace(WINDOW, requests=1000, tokens=8000), cpu_s={INGRESS: 0.1})
    assert cost_of(INGRESS, short, STEP) == Cost(0.0, 90.0)  # without the tenth that it uses anyway
    assert cost_of(INGRESS, replace(short, cpu_s={INGRESS: 4.1}), replace(STEP, cpu_s={INGRESS: 0.2})).token_us == 0.0


def test_cores_of_a_cluster() -> None:
    costs = {part: Cost(1000.0, 90.0) for part in PARTS}
    assert costs[INGRESS].cores(60_000, tokens_each=100) == pytest.approx(6.0)
    assert "| 600 | 60,000 | 10 | 10 | 6% of a core |" in cluster_table(costs, 100, [600.0], tokens_each=100)


def test_a_step_is_a_line() -> None:
    line = steps_table([STEP]).splitlines()[-1]
    assert line.startswith("| 1 x 2 | 64 | 1,000 | 1,000 | 50 / 100 | 20 | 100 | 100 | 100 | 100 | 10% | 10% | 10% |")


def test_arrangements_have_their_replicas_and_no_bounds() -> None:
    config = arrangement(2, 8)
    (ingress,) = (each for each in application(config, "gateway")["deployments"] if each["name"] == "Ingress")
    (engine,) = application(config, "model-fake")["deployments"]
    assert (ingress["num_replicas"], engine["num_replicas"]) == (2, 8)
    assert all("autoscaling_config" not in options for options in (ingress, engine))


def test_pairs() -> None:
    assert pairs("2x1,1x8") == [(2, 1), (1, 8)]
    with pytest.raises(ValueError, match="not enough values"):
        pairs("2")
