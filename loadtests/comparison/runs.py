"""What a comparison has measured, as it is saved: runs of contenders, and figures of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from loadtests.comparison.figures import Burst
from loadtests.servers.processes import ENGINE, Used

BARE = "bare"


@dataclass(frozen=True, slots=True)
class Load:
    """What the client asks for, for how long."""

    name: str
    streams: int
    """Requests at once."""
    is_plain: bool
    """Not streamed."""
    seconds: float
    tokens: int = 64
    """Of each answer."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One load on one server, and the CPU time of the server's processes meanwhile."""

    burst: Burst
    cpu_s: dict[str, float]
    """By role."""
    processes: list[Used]
    """Those that used most, most first."""
    window_s: float | None = None
    """Between the two readings."""

    @property
    def front_door_s(self) -> float:
        return front_door(self.cpu_s)


def front_door(by_role: dict[str, float]) -> float:
    """Add up all roles but the engine core's."""
    return sum(used for role, used in by_role.items() if role != ENGINE)


@dataclass(frozen=True, slots=True)
class Run:
    """One contender in one repetition."""

    contender: str
    repetition: int
    start_s: float | None = None
    """From the first command to the first token; None: there was none."""
    deploy_s: float | None = None
    """From `serve deploy` to the first token."""
    idle_cpu: float | None = None
    """CPU seconds per second of all its processes while nobody asks anything."""
    idle_front_door: float | None = None
    """The same without the engine core."""
    memory_bytes: dict[str, int] = field(default_factory=dict)
    """By role, after the loads; proportional set sizes."""
    loads: dict[str, Measured] = field(default_factory=dict)
    """By name; those before a failure."""
    error: str = ""
    """What went wrong beside the requests; "": nothing."""


def joined(parts: Sequence[Sequence[Run]]) -> list[Run]:
    """Return the runs of several comparisons as those of one, whose repetitions are numbered on: they make no pairs."""
    runs: list[Run] = []
    for part in parts:
        begin = max((run.repetition for run in runs), default=-1) + 1
        runs += [replace(run, repetition=begin + run.repetition) for run in part]
    return runs


Figure = Callable[[Run], float | None]
"""Reads one number off a run; None: it has none."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the same figure in several repetitions."""

    median: float
    lowest: float
    highest: float
    count: int


def to_run(saved: dict[str, Any]) -> Run:
    """Read a run back from JSON."""
    loads = {
        name: Measured(
            Burst(**each["burst"]), each["cpu_s"], [Used(**used) for used in each["processes"]], each.get("window_s")
        )
        for name, each in saved["loads"].items()
    }
    return Run(**{**saved, "loads": loads})


def in_burst(load: str, read: Callable[[Burst], float | None]) -> Figure:
    """Return a figure of the requests of a load."""
    return lambda run: read(run.loads[load].burst) if load in run.loads else None


def tokens_per_s(load: str) -> Figure:
    return in_burst(load, lambda burst: burst.tokens / burst.elapsed_s)


def requests_per_s(load: str) -> Figure:
    return in_burst(load, lambda burst: burst.requests / burst.elapsed_s)


def cpu_us_per_token(load: str, role: str | None = None) -> Figure:
    """Return the figure of one role, or of the front door: all of them but the engine core."""

    def read(run: Run) -> float | None:
        measured = run.loads.get(load)
        if measured is None or not measured.burst.tokens:
            return None
        cpu_s = measured.front_door_s if role is None else measured.cpu_s.get(role, 0.0)
        return cpu_s / measured.burst.tokens * 1e6

    return read


def busy_us_per_token(load: str) -> Figure:
    """Return the front door's figure without what it uses when nobody asks: what one more token would cost."""

    def read(run: Run) -> float | None:
        measured = run.loads.get(load)
        if measured is None or not measured.burst.tokens or run.idle_front_door is None or measured.window_s is None:
            return None
        idle_s = run.idle_front_door * measured.window_s
        return (measured.front_door_s - idle_s) / measured.burst.tokens * 1e6

    return read


def memory_gb(run: Run) -> float | None:
    return sum(run.memory_bytes.values()) / 1e9 if run.memory_bytes else None


def spread_of(values: Sequence[float | None]) -> Spread | None:
    """Return None when no repetition has the figure."""
    known = [value for value in values if value is not None]
    return Spread(median(known), min(known), max(known), len(known)) if known else None


def values(runs: Sequence[Run], contender: str, figure: Figure) -> Spread | None:
    return spread_of([figure(run) for run in runs if run.contender == contender])


def paired(
    runs: Sequence[Run],
    contender: str,
    figure: Figure,
    combine: Callable[[float, float], float] = lambda own, other: own / other,
    other: str = BARE,
    other_figure: Figure | None = None,
) -> Spread | None:
    """Combine a figure with another contender's of the same repetition: their ratio, if not told otherwise."""
    others = {run.repetition: (other_figure or figure)(run) for run in runs if run.contender == other}
    found: list[float | None] = []
    for run in runs:
        value, reference = figure(run), others.get(run.repetition)
        if run.contender == contender and value is not None and reference:
            found.append(combine(value, reference))
    return spread_of(found)


def problems(runs: Sequence[Run], contender: str, load: str | None = None) -> str:
    """Say what went wrong in any repetition, of one load or of all; "": nothing."""
    found: dict[str, int] = {}
    for run in runs:
        if run.contender != contender:
            continue
        if run.error:
            found[run.error] = found.get(run.error, 0) + 1
        for name, measured in run.loads.items():
            if load in (None, name):
                for kind, count in measured.burst.errors.items():
                    found[kind] = found.get(kind, 0) + count
    return ", ".join(f"{count} x {what}" for what, count in found.items())


def rotated(names: Sequence[str], by: int) -> list[str]:
    """Return the names, another one first each time: the first may find the machine otherwise than the last."""
    first = by % len(names)
    return [*names[first:], *names[:first]]
