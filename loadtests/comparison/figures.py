"""What a load has brought, as numbers: of the requests of one burst. Plain Python, for any environment."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.load.events import Outcome

TOGETHER_S = 0.001
"""Chunks that come closer than this are one update to whoever reads."""


@dataclass(frozen=True, slots=True)
class Burst:
    """One load on one server."""

    requests: int
    tokens: int
    elapsed_s: float
    """From the first request sent to the last answer received."""
    errors: dict[str, int]
    """How many of each kind; an answer with another number of tokens than asked for is one."""
    chunks: int
    """With text, of streamed answers."""
    client_cpu_s: float
    e2e_p50_s: float | None
    ttft_p50_s: float | None
    """None, as everything below: nothing was streamed."""
    ttft_p95_s: float | None
    itl_p50_s: float | None
    """Between two updates of the same answer: chunks that come together, as tokens in batches do, are one."""
    itl_p99_s: float | None
    updates_per_s: float | None
    """How often a reader of one stream sees something new."""


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the nearest value at that share of the sorted values, None when there are none."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None


def to_burst(outcomes: Sequence[Outcome], elapsed_s: float, client_cpu_s: float, tokens_each: int) -> Burst:
    """Add requests up; failed ones count as errors and nowhere else."""
    good = [outcome for outcome in outcomes if not outcome.error]
    errors = Counter(outcome.error for outcome in outcomes if outcome.error)
    if wrong := sum(outcome.num_tokens != tokens_each for outcome in good):
        errors["another number of tokens"] = wrong
    ttfts = [outcome.ttft_s for outcome in good if outcome.ttft_s is not None]
    gaps = [gap_s for outcome in good for gap_s in outcome.gaps_s]
    waits = [gap_s for gap_s in gaps if gap_s >= TOGETHER_S]
    return Burst(
        requests=len(good),
        tokens=sum(outcome.num_tokens for outcome in good),
        elapsed_s=elapsed_s,
        errors=dict(errors),
        chunks=len(ttfts) + len(gaps),
        client_cpu_s=client_cpu_s,
        e2e_p50_s=percentile([outcome.e2e_s for outcome in good], 0.5),
        ttft_p50_s=percentile(ttfts, 0.5),
        ttft_p95_s=percentile(ttfts, 0.95),
        itl_p50_s=percentile(waits, 0.5),
        itl_p99_s=percentile(waits, 0.99),
        updates_per_s=len(waits) / sum(gaps) if gaps else None,
    )
