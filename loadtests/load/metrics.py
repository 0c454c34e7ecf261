"""What a run counts: a tally for each scenario and each stretch of time, which add up over both, and over processes."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from loadtests.load.events import Outcome
from loadtests.load.histogram import Histogram, add_counts, add_time

E2E, TTFT, ITL, TPOT = "e2e", "ttft", "itl", "tpot"
"""End to end; to the first text; between two chunks with text; per token after the first text."""
KINDS = (TTFT, ITL, TPOT, E2E)
AFTER_THE_END = -1
"""The stretch of answers that came when the load was over: right, but not achieved in its time."""


@dataclass(slots=True)
class Tally:
    """Counts of requests, and times of those answered without an error: a refusal is fast, and no answer."""

    due: int = 0
    """Requests that were to be made, also those for which nobody was free."""
    not_sent: int = 0
    """Of those due: too many were under way."""
    answered: int = 0
    """Without an error."""
    good: int = 0
    """Of those answered: with the first text in time."""
    failed: int = 0
    tokens: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    """By kind."""
    times: dict[str, Histogram] = field(default_factory=lambda: {kind: {} for kind in KINDS})

    @property
    def unfinished(self) -> int:
        return self.due - self.not_sent - self.answered - self.failed

    def add(self, other: "Tally") -> None:
        self.due += other.due
        self.not_sent += other.not_sent
        self.answered += other.answered
        self.good += other.good
        self.failed += other.failed
        self.tokens += other.tokens
        add_counts(self.errors, other.errors)
        for kind, histogram in other.times.items():
            add_counts(self.times[kind], histogram)


def total(tallies: Iterable[Tally]) -> Tally:
    whole = Tally()
    for tally in tallies:
        whole.add(tally)
    return whole


class Tallies:
    """Of one process, or of all of them where their reports come together. Times are `time.perf_counter()`'s.

    run_s: how long the load lasts; stretch_s: of one tally.
    """

    def __init__(self, begin_s: float, run_s: float = float("inf"), stretch_s: float = 1.0) -> None:
        self.begin_s = begin_s
        self.run_s = run_s
        self.stretch_s = stretch_s
        self.cells: dict[tuple[int, str], Tally] = {}

    def is_over(self, now_s: float) -> bool:
        return now_s - self.begin_s >= self.run_s

    def add_due(self, name: str, due_s: float, is_sent: bool = True) -> None:
        """Count a request that is to be made."""
        tally = self._at(due_s, name)
        tally.due += 1
        tally.not_sent += not is_sent

    def add_outcome(self, name: str, outcome: Outcome, due_s: float, ttft_limit_s: float) -> None:
        """Count an answer; each of its times where it came to an end."""
        tally = self._at(due_s + outcome.e2e_s, name)
        if outcome.error:
            tally.failed += 1
            add_counts(tally.errors, {outcome.error: 1})
            return
        tally.answered += 1
        tally.good += (outcome.e2e_s if outcome.ttft_s is None else outcome.ttft_s) <= ttft_limit_s
        add_time(tally.times[E2E], outcome.e2e_s)
        if outcome.ttft_s is None:
            tally.tokens += outcome.num_tokens
        else:
            self._add_stream(name, outcome, due_s + outcome.ttft_s, outcome.ttft_s)
        if outcome.gaps_s and outcome.num_tokens > 1:
            add_time(tally.times[TPOT], sum(outcome.gaps_s) / (outcome.num_tokens - 1))

    def _add_stream(self, name: str, outcome: Outcome, at_s: float, ttft_s: float) -> None:
        """Count each chunk when it came: a stall shows where it was, and tokens are not all at the end."""
        tokens = outcome.num_tokens / (len(outcome.gaps_s) + 1)
        tally = self._at(at_s, name)
        tally.tokens += tokens
        add_time(tally.times[TTFT], ttft_s)
        for gap_s in outcome.gaps_s:
            at_s += gap_s
            tally = self._at(at_s, name)
            tally.tokens += tokens
            add_time(tally.times[ITL], gap_s)

    def _at(self, at_s: float, name: str) -> Tally:
        number = AFTER_THE_END if self.is_over(at_s) else int((at_s - self.begin_s) / self.stretch_s)
        key = (number, name)
        tally = self.cells.get(key)
        if tally is None:
            tally = self.cells[key] = Tally()
        return tally

    def take(self) -> list[Any]:
        """Return everything counted since the last call, as plain data."""
        taken = [[number, name, asdict(tally)] for (number, name), tally in self.cells.items()]
        self.cells = {}
        return taken

    def put(self, taken: list[Any]) -> None:
        """Add what another process has taken."""
        for number, name, values in taken:
            self.cells.setdefault((number, name), Tally()).add(Tally(**values))

    def of_scenarios(self) -> dict[str, tuple[Tally, Tally]]:
        """Return for each scenario all that was counted, and what was counted while the load lasted."""
        return {name: self._both(name) for name in sorted({name for _, name in self.cells})}

    def of_all(self) -> tuple[Tally, Tally]:
        return self._both(None)

    def _both(self, name: str | None) -> tuple[Tally, Tally]:
        cells = [(number, tally) for (number, each), tally in self.cells.items() if name in (None, each)]
        return total(tally for _, tally in cells), total(tally for number, tally in cells if number >= 0)

    def over_time(self) -> list[tuple[int, Tally]]:
        """Return a tally of all scenarios for each stretch of the load, empty ones too."""
        last = max((number for number, _ in self.cells), default=AFTER_THE_END)
        stretches = [(number, Tally()) for number in range(last + 1)]
        for (number, _), tally in self.cells.items():
            if number >= 0:
                stretches[number][1].add(tally)
        return stretches
