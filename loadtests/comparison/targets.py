"""The targets of the design that a comparison can measure, and whether they are reached."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub

from loadtests.comparison.runs import (
    BARE,
    Figure,
    Run,
    Spread,
    cpu_us_per_token,
    in_burst,
    memory_gb,
    paired,
    problems,
    requests_per_s,
    tokens_per_s,
    values,
)

HANDLE, DIRECT, RAYLLM = "handle plane", "direct plane", "ray.serve.llm"
ONE, EIGHT, MANY, PLAIN = "1 stream", "8 streams", "32 streams", "32, not streamed"
LONG = "32 streams of 512 tokens"
"""The names of the loads."""


@dataclass(frozen=True, slots=True)
class Target:
    """One row: what is compared, what it must be and what it is."""

    what: str
    contender: str
    limit: float
    is_ceiling: bool
    """At most `limit`; else at least."""
    measured: Spread | None
    problems: str = ""
    """Of the requests behind it; a figure with errors in it reaches nothing."""
    unit: str = ""

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        if self.problems:
            return "errors"
        is_met = self.measured.median <= self.limit if self.is_ceiling else self.measured.median >= self.limit
        return "met" if is_met else "missed"


def ttft_p50_s(load: str) -> Figure:
    return in_burst(load, lambda burst: burst.ttft_p50_s)


def targets(runs: Sequence[Run]) -> list[Target]:
    """Return all targets; those of a contender that did not run are not measured."""
    return [*speed_of(runs, HANDLE, 2.0), *speed_of(runs, DIRECT, 0.5), *direct_plane(runs)]


def problems_of(runs: Sequence[Run], plane: str) -> str:
    """Say what went wrong with a plane, or with whom it is compared."""
    return ", ".join(filter(None, (problems(runs, plane), problems(runs, BARE))))


def speed_of(runs: Sequence[Run], plane: str, max_cpu: float) -> list[Target]:
    """Return the targets that every data plane has."""
    bad = problems_of(runs, plane)
    added_ttft = paired(runs, plane, ttft_p50_s(ONE), lambda own, bare: (own - bare) * 1e3)
    start = paired(runs, plane, lambda run: run.deploy_s)
    return [
        Target(
            "front-door CPU per token / bare", plane, max_cpu, True, paired(runs, plane, cpu_us_per_token(MANY)), bad
        ),
        Target("TTFT p50 added over bare, 1 stream", plane, 10.0, True, added_ttft, bad, " ms"),
        Target("TTFT p50 / bare", plane, 1.15, True, paired(runs, plane, ttft_p50_s(MANY)), bad),
        Target("non-streamed requests/s / bare", plane, 0.9, False, paired(runs, plane, requests_per_s(PLAIN)), bad),
        Target("`serve deploy` to first token / bare's start", plane, 1.3, True, start, bad),
        Target("memory beyond bare's", plane, 2.0, True, paired(runs, plane, memory_gb, sub), bad, " GB"),
    ]


def direct_plane(runs: Sequence[Run]) -> list[Target]:
    bad = problems_of(runs, DIRECT)
    bad_rayllm = ", ".join(filter(None, (problems(runs, DIRECT), problems(runs, RAYLLM))))
    speed, updates = tokens_per_s(MANY), in_burst(MANY, lambda burst: burst.updates_per_s)
    return [
        Target("visible updates per second and stream", DIRECT, 15.0, False, values(runs, DIRECT, updates), bad),
        Target("tokens/s / bare", DIRECT, 1.0, False, paired(runs, DIRECT, speed, other=BARE), bad),
        Target("tokens/s / ray.serve.llm", DIRECT, 2.3, False, paired(runs, DIRECT, speed, other=RAYLLM), bad_rayllm),
    ]
