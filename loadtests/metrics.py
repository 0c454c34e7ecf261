"""What a run has measured: rows in locust's own tables, a JSON summary, and thresholds that fail the run."""

import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.events import Outcome

MS = 1000


@dataclass
class Totals:
    """Of one process; locust adds up its own tables over processes."""

    begin_s: float = field(default_factory=time.monotonic)
    offered: int = 0
    """Requests that were due, whether or not somebody was free to send them."""
    sent: int = 0
    good: int = 0
    """Answered without an error, and in time."""
    tokens: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)


def record(environment: Any, totals: Totals, name: str, outcome: Outcome, limits: "Limits") -> None:
    """Add a request: rows `e2e`, `ttft` and `itl` of its name; a failed one is a row under its kind."""
    error = RuntimeError(outcome.error) if outcome.error else None
    fire(environment, "e2e", name, outcome.e2e_s, outcome.num_tokens, error)
    if outcome.error:
        fire(environment, "error", f"{name}: {outcome.error}", outcome.e2e_s, 0, None)
    if outcome.ttft_s is not None:
        fire(environment, "ttft", name, outcome.ttft_s, 0, None)
    for gap_s in outcome.gaps_s:
        fire(environment, "itl", name, gap_s, 0, None)
    with totals.lock:
        totals.sent += 1
        totals.tokens += outcome.num_tokens
        totals.good += not outcome.error and (outcome.ttft_s or outcome.e2e_s) <= limits.ttft_s
        if outcome.error:
            totals.errors[outcome.error] = totals.errors.get(outcome.error, 0) + 1


def fire(environment: Any, kind: str, name: str, took_s: float, size: int, error: Exception | None) -> None:
    environment.events.request.fire(
        request_type=kind,
        name=name,
        response_time=took_s * MS,
        response_length=size,
        exception=error,
        context={},
    )


@dataclass(frozen=True)
class Limits:
    """What a run must reach, or it fails."""

    ttft_s: float
    """A request whose first text comes later is not a good one."""
    min_goodput: float
    """Share of good ones among all that were sent."""
    max_error_rate: float


def summary(environment: Any, totals: Totals) -> dict[str, Any]:
    """Return the figures of a run: rates, and percentiles of each row in milliseconds."""
    elapsed_s = max(time.monotonic() - totals.begin_s, 1e-9)
    rows = {
        f"{entry.method} {entry.name}": {
            "count": entry.num_requests,
            "failures": entry.num_failures,
            **{f"p{share:g}_ms": entry.get_response_time_percentile(share / 100) for share in (50, 95, 99)},
        }
        for entry in environment.stats.entries.values()
    }
    return {
        "elapsed_s": elapsed_s,
        "offered_per_s": totals.offered / elapsed_s,
        "achieved_per_s": totals.sent / elapsed_s,
        "tokens_per_s": totals.tokens / elapsed_s,
        "goodput": totals.good / totals.sent if totals.sent else 0.0,
        "error_rate": sum(totals.errors.values()) / totals.sent if totals.sent else 1.0,
        "errors": totals.errors,
        "rows": rows,
    }


def verdict(figures: dict[str, Any], limits: Limits) -> str:
    """Say which threshold a run has missed; "": none."""
    if figures["error_rate"] > limits.max_error_rate:
        return f"error rate {figures['error_rate']:.1%}, allowed are {limits.max_error_rate:.1%}: {figures['errors']}"
    if figures["goodput"] < limits.min_goodput:
        return f"goodput {figures['goodput']:.1%}, wanted are {limits.min_goodput:.1%}"
    return ""


def save(path: Path, figures: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2) + "\n")
