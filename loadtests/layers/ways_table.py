"""What the ways into one workload cost, and by their differences each layer: figures to Markdown."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.output import table

MS, US = 1000, 1_000_000
HTTP, HANDLE, APPLICATION, API = "HTTP", "handle", "application", "Python API"
WAYS = (HTTP, HANDLE, APPLICATION, API)
"""From the outermost to the innermost."""
PROXY, INGRESS, CALLER, REPLICA, REST, CLIENT = "HAProxy", "ingress", "caller", "engine process", "Ray", "load client"
PARTS = (PROXY, INGRESS, CALLER, REPLICA, REST)
"""Of the front door; whoever calls the handle does the ingress's half of the call."""
LAYERS = {
    "AsyncLLM: queues, detokenizer": (API, None),
    "OpenAI application: template, checks, JSON": (APPLICATION, API),
    "handle: Serve, gRPC, both ends": (HANDLE, APPLICATION),
    "ingress, HAProxy, HTTP": (HTTP, HANDLE),
}
"""Each is the difference between two ways; the innermost is a way itself."""


@dataclass(frozen=True, slots=True)
class Run:
    """One load on one way."""

    way: str
    streams: int
    repetition: int
    tokens_per_s: float
    ttft_p50_s: float
    itl_p50_s: float
    itl_p99_s: float
    cpu_us: dict[str, float]
    """CPU microseconds per token, by part, beyond what it uses idle; the engine core's is none of them."""
    idle_cores: dict[str, float]
    """Used by each part while nobody asks."""

    @property
    def front_door_us(self) -> float:
        return sum(self.cpu_us.get(part, 0.0) for part in PARTS)


def of(runs: Sequence[Run], way: str, streams: int) -> list[Run]:
    """Return a way's runs in the order of their repetitions."""
    found = [run for run in runs if (run.way, run.streams) == (way, streams)]
    return sorted(found, key=lambda run: run.repetition)


def middle(runs: Sequence[Run], figure: Callable[[Run], float]) -> float:
    return statistics.median(map(figure, runs))


def ways_table(runs: Sequence[Run], streams: int) -> str:
    """Return the medians of each way, a line each, as a Markdown table."""
    head = ["way", "tokens/s", "TTFT p50, ms", "inter-token p50 / p99, ms", "front door, us per token"]
    rows = [[*head, *PARTS, CLIENT]]
    for way in WAYS:
        found = of(runs, way, streams)
        cells = [way, f"{middle(found, lambda run: run.tokens_per_s):,.0f}"]
        cells.append(f"{middle(found, lambda run: run.ttft_p50_s) * MS:.1f}")
        cells.append(" / ".join(f"{middle(found, figure) * MS:.1f}" for figure in (itl_p50, itl_p99)))
        cells.append(f"{middle(found, lambda run: run.front_door_us):.0f}")
        cells += [part_cell(found, part) for part in (*PARTS, CLIENT)]
        rows.append(cells)
    return table(rows[0], rows[1:])


def itl_p50(run: Run) -> float:
    return run.itl_p50_s


def itl_p99(run: Run) -> float:
    return run.itl_p99_s


def part_cell(runs: Sequence[Run], part: str) -> str:
    return f"{middle(runs, lambda run: run.cpu_us[part]):.0f}" if all(part in run.cpu_us for run in runs) else "-"


def idle_table(runs: Sequence[Run]) -> str:
    """Return what is used while nobody asks, in percent of a core, as a Markdown table."""
    rows = [["idle", *PARTS]]
    for way in WAYS:
        idle = next(run.idle_cores for run in runs if run.way == way)
        rows.append([way, *(f"{idle[part]:.1%}" if part in idle else "-" for part in PARTS)])
    return table(rows[0], rows[1:])


def layers_table(runs: Sequence[Run], streams: int) -> str:
    """Return what each layer adds, as a Markdown table: medians of the differences within a repetition, and spreads."""
    rows = [["layer", "us CPU per token (spread)", "TTFT p50, ms", "tokens/s, with / without it"]]
    for layer, (outer, inner) in LAYERS.items():
        with_it = of(runs, outer, streams)
        if inner is None:
            cpu = [run.front_door_us for run in with_it]
            ttft = [run.ttft_p50_s for run in with_it]
            share = "-"
        else:
            pairs = list(zip(with_it, of(runs, inner, streams), strict=True))
            cpu = [one.front_door_us - other.front_door_us for one, other in pairs]
            ttft = [one.ttft_p50_s - other.ttft_p50_s for one, other in pairs]
            share = f"{statistics.median(one.tokens_per_s / other.tokens_per_s for one, other in pairs):.2f}"
        spread = f"{statistics.median(cpu):.0f} ({min(cpu):.0f} to {max(cpu):.0f})"
        rows.append([layer, spread, f"{statistics.median(ttft) * MS:.1f}", share])
    return table(rows[0], rows[1:])


def report(runs: Sequence[Run]) -> str:
    """Return all tables, as Markdown: idle, then ways and layers for each number of streams."""
    parts = ["### Nobody asks", idle_table(runs)]
    for streams in sorted({run.streams for run in runs}):
        title = f"### {streams} stream{'s' if streams > 1 else ''}"
        parts += [title, ways_table(runs, streams), layers_table(runs, streams)]
    return "\n\n".join(parts) + "\n"
