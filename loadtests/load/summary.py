"""The figures of a run, from what was counted; and what it had to reach, or it fails."""

from dataclasses import dataclass
from typing import Any

from loadtests.load.histogram import Histogram, percentile_s
from loadtests.load.metrics import KINDS, Tallies, Tally

MS = 1000
PERCENTILES = (50, 90, 95, 99)

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run must reach, or it fails."""

    ttft_s: float
    """A request whose first text comes later (its answer, when it is not streamed) is not a good one."""
    min_goodput: float
    """Share of good ones among all that were due."""
    max_error_rate: float
    """Share of failed ones among all that were answered."""
    max_ttft_p95_s: float | None = None
    max_itl_p99_s: float | None = None


def summary(tallies: Tallies, elapsed_s: float, is_cut: bool) -> Figures:
    """Return rates, and percentiles in milliseconds: of the run, of each scenario, and over time.

    elapsed_s: how long the load lasted. is_cut: what is unfinished is so because somebody ended the run.
    """
    return {
        "elapsed_s": elapsed_s,
        "is_cut": is_cut,
        **figures(*tallies.of_all(), elapsed_s, is_cut),
        "scenarios": {name: figures(*both, elapsed_s, is_cut) for name, both in tallies.of_scenarios().items()},
        "over_time": [moment(number, tally, tallies, elapsed_s) for number, tally in tallies.over_time()],
    }


def figures(whole: Tally, in_time: Tally, elapsed_s: float, is_cut: bool) -> Figures:
    ended = whole.answered + whole.failed
    expected = whole.due - (whole.unfinished if is_cut else 0)
    return {
        "due": whole.due,
        "answered": whole.answered,
        "failed": whole.failed,
        "not_sent": whole.not_sent,
        "unfinished": whole.unfinished,
        "offered_per_s": whole.due / elapsed_s,
        "achieved_per_s": in_time.answered / elapsed_s,
        "tokens_per_s": in_time.tokens / elapsed_s,
        "goodput": whole.good / expected if expected else 0.0,
        "error_rate": whole.failed / ended if ended else 1.0,
        "errors": dict(sorted(whole.errors.items())),
        **{f"{kind}_ms": percentiles_ms(whole.times[kind]) for kind in KINDS},
    }


def moment(number: int, tally: Tally, tallies: Tallies, elapsed_s: float) -> Figures:
    begin_s = number * tallies.stretch_s
    length_s = max(min(tallies.stretch_s, elapsed_s - begin_s), 1e-9)
    return {
        "at_s": begin_s,
        "offered_per_s": tally.due / length_s,
        "achieved_per_s": tally.answered / length_s,
        "failed_per_s": tally.failed / length_s,
        "tokens_per_s": tally.tokens / length_s,
        **{f"{kind}_ms": percentiles_ms(tally.times[kind]) for kind in KINDS},
    }


def percentiles_ms(histogram: Histogram) -> dict[str, float | None]:
    found = {f"p{share}": percentile_s(histogram, share / 100) for share in PERCENTILES}
    return {name: None if value is None else round(value * MS, 3) for name, value in found.items()}


def missed(found: Figures, limits: Limits) -> list[str]:
    """Say which thresholds a run has missed, and by how much."""
    if not found["answered"]:
        rest = f"{found['not_sent']} not sent, {found['unfinished']} unfinished"
        return [f"no request was answered, of {found['due']} that were due: {found['errors']}, {rest}"]
    lines = []
    if (rate := found["error_rate"]) > limits.max_error_rate:
        many = f"{rate - limits.max_error_rate:.2%} too many, {found['errors']}"
        lines.append(f"error rate {rate:.2%}, allowed are {limits.max_error_rate:.2%}: {many}")
    if (share := found["goodput"]) < limits.min_goodput:
        short = f"{limits.min_goodput - share:.2%} too few, with {limits.ttft_s:g} s to the first text"
        lines.append(f"goodput {share:.2%}, wanted are {limits.min_goodput:.2%}: {short}")
    for name, kind, percentile, limit_s in (
        ("TTFT p95", "ttft_ms", "p95", limits.max_ttft_p95_s),
        ("inter-token p99", "itl_ms", "p99", limits.max_itl_p99_s),
    ):
        found_ms = found[kind][percentile]
        if limit_s is not None and found_ms is None:
            lines.append(f"{name} has a limit, and nothing was streamed")
        elif limit_s is not None and found_ms > limit_s * MS:
            lines.append(
                f"{name} {found_ms:.0f} ms, allowed are {limit_s * MS:.0f} ms: {found_ms / limit_s / MS:.2f} times"
            )
    return lines


def lines_of(found: Figures) -> list[str]:
    """Say the most important figures in a few lines."""
    lines = [
        f"{found['due']} requests were due in {found['elapsed_s']:.1f} s: {found['answered']} answered, "
        f"{found['failed']} failed, {found['not_sent']} not sent, {found['unfinished']} unfinished",
        f"offered {found['offered_per_s']:.2f}/s, achieved {found['achieved_per_s']:.2f}/s, "
        f"{found['tokens_per_s']:.0f} tokens/s, goodput {found['goodput']:.2%}, errors {found['error_rate']:.2%}",
    ]
    for kind in KINDS:
        times = [f"{name} {value:.1f}" for name, value in found[f"{kind}_ms"].items() if value is not None]
        lines += [f"{kind} ms: {', '.join(times)}"] if times else []
    return lines + [f"error: {count} times {error}" for error, count in found["errors"].items()]
