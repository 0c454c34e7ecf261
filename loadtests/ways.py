"""Three ways into the same workload, and one between: what does each layer cost?

    python -m loadtests.ways [--streams 1,8,32] [--tokens 64] [--repetitions 5]

The graph of `serve_config.yaml` is started, and the same engine once more in a process without a server. The ways take
turns: over HTTP; over Serve's handle, from a driver in the cluster; into vLLM's OpenAI application in process; into
AsyncLLM, its Python API. Prints Markdown, and saves it in `loadtests/results/` with the figures of every run.
"""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from contextlib import ExitStack, closing
from itertools import product

import psutil
import uvloop

from config.models import PROJECT_ROOT
from loadtests.comparison.figures import percentile
from loadtests.comparison.runs import rotated
from loadtests.layers.streams import HttpSource, Load, Timings, measure
from loadtests.layers.ways_table import (
    CALLER,
    CLIENT,
    HANDLE,
    HTTP,
    INGRESS,
    PROXY,
    REPLICA,
    REST,
    US,
    WAYS,
    Run,
    report,
)
from loadtests.layers.ways_worker import Worker
from loadtests.output import save
from loadtests.servers import processes
from loadtests.servers.processes import Used, snapshot, used_between, used_while_waiting
from tests.harness import Server, default_config, serving

MODEL = "demo"
CONFIG = PROJECT_ROOT / "serve_config.yaml"
IDLE_S = 5.0
MIN_REQUESTS = 32
"""Of a run, so that /proc's ticks of 10 ms are little beside its CPU time."""
ROUNDS = 4
"""Requests of each stream in a run of many streams: the last ones, fewer and fewer, are a small part of it."""
PARTS_OF_ROLES = {processes.PROXY: PROXY, processes.INGRESS: INGRESS, processes.SERVER: REPLICA}


class Ways:
    """The servers and drivers, all of them up at once: only one of them has work at a time."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self._server = server
        flags = server.config["controller_options"]["runtime_env"]["env_vars"]
        environment = {**flags, **server.cluster.environment}
        handle = Worker("loadtests.layers.ways_handle", server.cluster.address, MODEL, environment=environment)
        self._handle = stack.enter_context(closing(handle))
        engine = Worker("loadtests.layers.ways_in_process", str(CONFIG), MODEL, environment={})
        self._engine = stack.enter_context(closing(engine))
        self._idle_cores: dict[str, dict[str, float]] = {way: {} for way in WAYS}

    def look_at_idle(self) -> None:
        """See what each way uses while nobody asks; it is no cost of a token."""
        used, elapsed_s = used_while_waiting(self._pids, IDLE_S)
        for way in WAYS:
            self._idle_cores[way] = {part: cpu_s / elapsed_s for part, cpu_s in self._parts(way, used).items()}

    def run(self, way: str, load: Load, repetition: int) -> Run:
        """Put a load on a way; what every process has used meanwhile is its cost."""
        pids = self._pids()
        before = snapshot(pids)
        timings = self._measure(way, load)
        used = used_between(before, snapshot(pids))
        return to_run(way, load, repetition, timings, self._parts(way, used), self._idle_cores[way])

    def _measure(self, way: str, load: Load) -> Timings:
        if way == HTTP:
            return uvloop.run(over_http(self._server.config["http_options"]["port"], load))
        return (self._handle if way == HANDLE else self._engine).measure(way, load)

    def _pids(self) -> list[int]:
        engine = self._engine.process.pid
        own = [os.getpid(), self._handle.process.pid, engine]
        cores = [child.pid for child in psutil.Process(engine).children(recursive=True)]
        return [*own, *cores, *(process.pid for process in self._server.cluster.processes())]

    def _parts(self, way: str, used: Sequence[Used]) -> dict[str, float]:
        """Add the CPU seconds up by part, of what belongs to a way; engine cores belong to none."""
        ours = {self._handle.process.pid: CALLER, self._engine.process.pid: REPLICA, os.getpid(): CLIENT}
        parts_of_ours = {HTTP: {CLIENT}, HANDLE: {CALLER}}.get(way, {REPLICA})
        parts_of_cluster = {HTTP: {PROXY, INGRESS, REPLICA, REST}, HANDLE: {REPLICA, REST}}.get(way, set())
        totals: dict[str, float] = {}
        for each in used:
            if each.role == processes.ENGINE:
                continue
            part = ours.get(each.pid) or PARTS_OF_ROLES.get(each.role, REST)
            if part in (parts_of_ours if each.pid in ours else parts_of_cluster):
                totals[part] = totals.get(part, 0.0) + each.cpu_s
        return totals


async def over_http(port: int, load: Load) -> Timings:
    source = HttpSource("127.0.0.1", port, MODEL)
    try:
        return await measure(source, load)
    finally:
        source.close()


def to_run(
    way: str, load: Load, repetition: int, timings: Timings, cpu_s: dict[str, float], idle_cores: dict[str, float]
) -> Run:
    net_s = {part: used_s - idle_cores.get(part, 0.0) * timings.elapsed_s for part, used_s in cpu_s.items()}
    return Run(
        way=way,
        streams=load.streams,
        repetition=repetition,
        tokens_per_s=timings.num_tokens / timings.elapsed_s,
        ttft_p50_s=percentile(timings.ttft_s, 0.5) or 0.0,
        itl_p50_s=percentile(timings.gaps_s, 0.5) or 0.0,
        itl_p99_s=percentile(timings.gaps_s, 0.99) or 0.0,
        cpu_us={part: seconds / timings.num_tokens * US for part, seconds in net_s.items()},
        idle_cores=idle_cores,
    )


def take_turns(ways: Ways, loads: Sequence[Load], repetitions: int) -> list[Run]:
    """Run every load on every way, once to warm up, then in turns; the way that begins changes."""
    for load, way in product(loads, WAYS):
        ways.run(way, load, 0)
    ways.look_at_idle()
    runs = []
    for repetition, load in product(range(1, repetitions + 1), loads):
        for way in rotated(WAYS, repetition):
            runs.append(run := ways.run(way, load, repetition))
            print(
                f"{repetition}/{repetitions} {load.streams} streams, {way}: {run.tokens_per_s:,.0f} tokens/s",
                flush=True,
            )
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", default="1,8,32", help="how many at a time, one after the other")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer")
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    numbers = [int(number) for number in options.streams.split(",")]
    loads = [Load(number, max(MIN_REQUESTS, ROUNDS * number), options.tokens) for number in numbers]
    with ExitStack() as stack:
        ways = Ways(stack.enter_context(serving(default_config())), stack)
        runs = take_turns(ways, loads, options.repetitions)
        save("ways", [dataclasses.asdict(run) for run in runs], report(runs))


if __name__ == "__main__":
    main()
