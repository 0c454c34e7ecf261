"""What conversations over several replicas have brought, as numbers and as a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from loadtests.comparison.figures import percentile
from loadtests.conversations.texts import Plan
from loadtests.output import table

MS = 1000


@dataclass(frozen=True, slots=True)
class Turn:
    """One answer."""

    number: int
    """Within its conversation, from 0."""
    ttft_s: float
    prompt_tokens: int
    cached_tokens: int
    """Of the prompt, found in the replica's prefix cache."""


@dataclass(frozen=True, slots=True)
class Run:
    """One load on one server."""

    way: str
    """How replicas were chosen."""
    repetition: int
    turns: int
    hit_rate: float
    """Share of all prompt tokens that a replica had computed before."""
    first_hit_rate: float
    """Of first turns: system prompts."""
    later_hit_rate: float
    ttft_p50_s: float
    ttft_p95_s: float
    later_ttft_p50_s: float
    """Of all turns but the first ones of conversations."""
    later_ttft_p95_s: float
    turns_per_s: float


def to_run(way: str, repetition: int, turns: Sequence[Turn], elapsed_s: float) -> Run:
    """Add turns up; there must be some."""
    first, later = [turn for turn in turns if turn.number == 0], [turn for turn in turns if turn.number > 0]
    return Run(
        way=way,
        repetition=repetition,
        turns=len(turns),
        hit_rate=hit_rate(turns),
        first_hit_rate=hit_rate(first),
        later_hit_rate=hit_rate(later),
        ttft_p50_s=ttft(turns, 0.5),
        ttft_p95_s=ttft(turns, 0.95),
        later_ttft_p50_s=ttft(later, 0.5),
        later_ttft_p95_s=ttft(later, 0.95),
        turns_per_s=len(turns) / elapsed_s,
    )


def hit_rate(turns: Sequence[Turn]) -> float:
    total = sum(turn.prompt_tokens for turn in turns)
    return sum(turn.cached_tokens for turn in turns) / total if total else 0.0


def ttft(turns: Sequence[Turn], share: float) -> float:
    return percentile([turn.ttft_s for turn in turns], share) or 0.0


COLUMNS: dict[str, Callable[[Run], float]] = {
    "cached": lambda run: run.hit_rate,
    "cached, first turns": lambda run: run.first_hit_rate,
    "cached, later turns": lambda run: run.later_hit_rate,
    "TTFT p50, ms": lambda run: run.ttft_p50_s * MS,
    "TTFT p95, ms": lambda run: run.ttft_p95_s * MS,
    "later turns' TTFT p50, ms": lambda run: run.later_ttft_p50_s * MS,
    "later turns' TTFT p95, ms": lambda run: run.later_ttft_p95_s * MS,
    "turns/s": lambda run: run.turns_per_s,
}
SHARES = frozenset(name for name in COLUMNS if name.startswith("cached"))


def report(runs: Sequence[Run], plan: Plan, plane: str) -> str:
    """Write medians over the repetitions, and the first way over each of the others in the same repetition."""
    ways = list(dict.fromkeys(run.way for run in runs))
    rows = [[way, *(medians(runs, way, name) for name in COLUMNS)] for way in ways]
    rows += [[f"{ways[0]} / {way}", *(ratio(runs, ways[0], way, name) for name in COLUMNS)] for way in ways[1:]]
    repetitions = len({run.repetition for run in runs})
    return (
        f"# Choosing among two replicas, {plane} plane\n\n"
        f"{plan.users} users at once, {plan.conversations} conversations each of {plan.turns} turns and {plan.tokens} "
        f"tokens per answer; {plan.system_prompts} system prompts of {plan.system_words} words, questions of "
        f"{plan.question_words}. Medians of {repetitions} repetitions; ratios are medians of the ratios within each. "
        "`cached`: share of the prompt tokens that the replica had computed before, by its own account.\n\n"
        + table(["replicas chosen by", *COLUMNS], rows)
        + "\n"
    )


def medians(runs: Sequence[Run], way: str, name: str) -> str:
    value = median(COLUMNS[name](run) for run in runs if run.way == way)
    return f"{value:.1%}" if name in SHARES else f"{value:.1f}"


def ratio(runs: Sequence[Run], way: str, other: str, name: str) -> str:
    """Return the median of a figure's ratios between two ways; "-" when there is none."""
    figure = COLUMNS[name]
    values = {run.repetition: figure(run) for run in runs if run.way == other}
    pairs = [(figure(run), values.get(run.repetition)) for run in runs if run.way == way]
    ratios = [above / below for above, below in pairs if below]
    return f"{median(ratios):.2f}" if ratios else "-"
