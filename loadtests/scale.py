"""Where does the front door stop? The fake engine at the speed of GPUs behind the real graph.

    python -m loadtests.scale [--streams 8,32,64,128,256,512] [--seconds 8] [--replicas 2x1,1x2]

Each stream brings a token every 20 ms, as one of a large model on a GPU does. First the number of streams grows, with
one ingress and one engine replica; then the same load is put on more replicas; last, short answers separate what a
request costs from what its tokens cost. Prints Markdown, and saves it in `loadtests/results/` with all figures.
"""

import argparse
import asyncio
import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import uvloop

from loadtests.layers.streams import HttpSource
from loadtests.output import save
from loadtests.scaling.scale_load import Endless, Window
from loadtests.scaling.scale_table import (
    ACTORS,
    TOKEN_PARTS,
    Step,
    cluster_table,
    cost_of,
    costs_table,
    cpu_by_part,
    idle_table,
    part_of,
    steps_table,
)
from loadtests.servers.processes import Sample, Used, snapshot, used_between, used_while_waiting
from tests.harness import Config, Server, application, default_config, eventually, fake_model, serving

MODEL = "fake"
Samples = dict[int, Sample]
TOKENS_PER_S = 50
"""Of one stream: what a reader gets of a large model on a busy GPU."""
TTFT_S = 0.05
LONG_TOKENS, SHORT_TOKENS = 128, 8
"""Of an answer. Long ones tell what a token costs, short ones what a request does."""
SAME_STREAMS = 64
"""Of what is compared: few enough that nothing is at its limit."""
RAMP_S = 2.0
"""In which the streams begin, one after the other: else all tokens would come at the same moments."""
UNBOUNDED = 100_000
"""Requests: no bound of the graph is to be met, only what its processes can do."""
GPUS = 100
RATES = (2_500.0, 10_000.0, 25_000.0)
"""Tokens/s of a GPU."""


def arrangement(ingresses: int, engines: int) -> Config:
    """Return the shipped config with the fake engine and fixed numbers of replicas, without bounds."""
    config = default_config()
    gateway = application(config, "gateway")
    gateway["args"] |= {"max_concurrent_requests": UNBOUNDED}
    model = fake_model(MODEL, ttft_s=TTFT_S, itl_s=1 / TOKENS_PER_S)
    fix_replicas(gateway, "Ingress", ingresses)
    fix_replicas(model, "Engine", engines)
    config["applications"] = [gateway, model]
    return config


def fix_replicas(app: Config, deployment: str, number: int) -> None:
    options = next(options for options in app["deployments"] if options["name"] == deployment)
    options |= {"num_replicas": number, "max_ongoing_requests": UNBOUNDED, "max_queued_requests": -1}
    options.pop("autoscaling_config")
    # A sum of reservations must not keep replicas out: what they really use is measured.
    options["ray_actor_options"] = {"num_cpus": 0.01}


class Bench:
    """A running arrangement, changed in place."""

    def __init__(self, server: Server, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self._replicas = (1, 1)
        self._idle_cores: dict[str, float] = {}
        self.steps: list[Step] = []

    def rearrange(self, ingresses: int, engines: int) -> None:
        """Have so many replicas; returns once HAProxy and the handles know of them."""
        if self._replicas == (ingresses, engines):
            return
        current = self._server.config
        wanted = arrangement(ingresses, engines)
        self._server.deploy({**current, "applications": with_data_dir(current, wanted)})
        eventually(lambda: self._numbers() == (ingresses, engines), f"{ingresses} ingress, {engines} engine replicas")
        self._server.wait_until_ready()
        self._replicas = (ingresses, engines)
        self.warm_up()

    def warm_up(self) -> None:
        """Have everything used once, then see what it uses while nobody asks."""
        uvloop.run(self._load(SAME_STREAMS, SHORT_TOKENS))
        used, elapsed_s = used_while_waiting(self._pids, self._seconds)
        self._idle_cores = {part: cpu_s / elapsed_s for part, cpu_s in cpu_by_part(used, os.getpid()).items()}

    def _numbers(self) -> tuple[int, int]:
        pairs = (("gateway", "Ingress"), (f"model-{MODEL}", "Engine"))
        ready, there = (
            tuple(len(read(app, deployment)) for app, deployment in pairs)
            for read in (self._server.running, self._server.replicas)
        )
        return (ready[0], ready[1]) if ready == there else (0, 0)

    def step(self, streams: int, tokens: int) -> Step:
        """Put a load on it and keep what it cost."""
        window, before, after = uvloop.run(self._load(streams, tokens))
        used = used_between(before, after)
        step = to_step(self._replicas, streams, tokens, window, used, self._idle_cores)
        self.steps.append(step)
        print(steps_table([step]).splitlines()[-1], flush=True)
        return step

    async def _load(self, streams: int, tokens: int) -> tuple[Window, Samples, Samples]:
        source = HttpSource("127.0.0.1", self._server.config["http_options"]["port"], MODEL)
        load = Endless(source, streams, tokens, RAMP_S)
        await asyncio.sleep(2 * RAMP_S)
        try:
            return await load.watch(self._seconds, self._look())
        finally:
            await load.stop()
            source.close()

    def _look(self) -> Callable[[], Samples]:
        pids = self._pids()
        return lambda: snapshot(pids)

    def _pids(self) -> list[int]:
        return [os.getpid(), *(process.pid for process in self._server.cluster.processes())]


def with_data_dir(current: Config, wanted: Config) -> list[Any]:
    """Return the applications of a config with what belongs to the server that runs."""
    kept = application(current, "gateway")["args"]["data_dir"]
    application(wanted, "gateway")["args"]["data_dir"] = kept
    applications: list[Any] = wanted["applications"]
    return applications


def to_step(
    replicas: tuple[int, int],
    streams: int,
    tokens: int,
    window: Window,
    used: Sequence[Used],
    idle_cores: dict[str, float],
) -> Step:
    """Return a load's figures; `used` has the busiest process first."""
    client = os.getpid()
    return Step(
        ingresses=replicas[0],
        engines=replicas[1],
        streams=streams,
        tokens_each=tokens,
        offered_per_s=streams * tokens / (TTFT_S + (tokens - 1) / TOKENS_PER_S),
        window=window,
        cpu_s=cpu_by_part(used, client),
        busiest=part_of(used[0].pid, used[0].command, client),
        busiest_cores=used[0].cpu_s / window.seconds,
        cores=sum(each.cpu_s for each in used) / window.seconds,
        num_cores=len(os.sched_getaffinity(0)),
        idle_cores=idle_cores,
    )


def run(bench: Bench, streams: Sequence[int], replicas: Iterable[tuple[int, int]]) -> str:
    """Measure, and return the report; `replicas` are the (ingress, engine) numbers to compare with one of each."""
    bench.warm_up()
    ladder = [bench.step(number, LONG_TOKENS) for number in streams]
    long, short = (bench.step(SAME_STREAMS, tokens) for tokens in (LONG_TOKENS, SHORT_TOKENS))
    same = [long]
    for ingresses, engines in replicas:
        bench.rearrange(ingresses, engines)
        same += [bench.step(number, LONG_TOKENS) for number in (SAME_STREAMS, streams[-1])]
    costs = {part: cost_of(part, short, long) for part in (*TOKEN_PARTS, ACTORS)}
    return "\n\n".join(
        [
            f"### More streams, {TOKENS_PER_S} tokens/s each\n\n{steps_table(ladder)}",
            f"### More replicas\n\n{steps_table(same)}",
            f"### Idle, in percent of a core\n\n{idle_table([long, *same])}",
            f"### Answers of {SHORT_TOKENS} tokens\n\n{steps_table([short])}",
            f"### What a request and a token cost\n\n{costs_table(costs)}",
            f"### {GPUS} GPUs\n\n{cluster_table(costs, GPUS, RATES, LONG_TOKENS)}\n",
        ]
    )


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def pairs(text: str) -> list[tuple[int, int]]:
    """Read `2x1,8x8`; raises ValueError."""
    found = [part.split("x") for part in text.split(",")]
    return [(int(first), int(second)) for first, second in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=numbers, default=[8, 32, 64, 128, 256, 512], help="one after the other")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement")
    default = [(2, 1), (1, 2), (2, 2), (8, 1), (1, 8)]
    parser.add_argument("--replicas", type=pairs, default=default, help="ingress x engine replicas, such as 2x1,8x8")
    options = parser.parse_args()
    with serving(arrangement(1, 1)) as server:
        bench = Bench(server, options.seconds)
        text = run(bench, options.streams, options.replicas)
        save("scale", [dataclasses.asdict(step) for step in bench.steps], text)


if __name__ == "__main__":
    main()
