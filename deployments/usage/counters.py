"""Counts per key in a sliding minute: those of this replica exactly, those of the others as last reported.

The window is Cloudflare's approximation (https://blog.cloudflare.com/counting-things-a-lot-of-different-things/): the
current calendar minute plus the share of the last one that the window still covers.
"""

import math
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

WINDOW_S = 60
ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Counts:
    """Use of one key: in flight now, and begun or spent in two calendar minutes."""

    minute: int = 0
    """The current calendar minute, Unix time / 60."""
    in_flight: int = 0
    requests: int = 0
    tokens: int = 0
    last_requests: int = 0
    """Of the minute before."""
    last_tokens: int = 0

    def at(self, minute: int) -> "Counts":
        """Return the same counts as seen in a later minute."""
        if minute <= self.minute:
            return self
        kept = (self.requests, self.tokens) if minute == self.minute + 1 else (0, 0)
        return Counts(minute, self.in_flight, 0, 0, *kept)

    def plus(self, other: "Counts") -> "Counts":
        minute = max(self.minute, other.minute)
        one, two = self.at(minute), other.at(minute)
        return Counts(
            minute,
            one.in_flight + two.in_flight,
            one.requests + two.requests,
            one.tokens + two.tokens,
            one.last_requests + two.last_requests,
            one.last_tokens + two.last_tokens,
        )

    @property
    def is_zero(self) -> bool:
        return self == Counts(self.minute)


Report = Mapping[str, Counts]
"""Counts by key name."""

NOTHING = Counts()


@dataclass(frozen=True, slots=True)
class Allowance:
    """One limit of a key and what is left of it."""

    what: str
    """`requests` or `tokens`, as in the header names."""
    limit: int
    remaining: int
    reset_s: int
    """When something is free again, in seconds; 0 when something is."""


@dataclass
class Ledger:
    """The counts of one ingress replica. `now_s` is Unix time, for the replicas' minutes must be the same."""

    now_s: Callable[[], float] = time.time
    own: dict[str, Counts] = field(default_factory=dict)
    others: Report = field(default_factory=dict)
    replica: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Whose counts these are, among those who share them."""

    def begin(self, name: str) -> None:
        counts = self._own(name)
        self.own[name] = replace(counts, in_flight=counts.in_flight + 1, requests=counts.requests + 1)

    def end(self, name: str, tokens: int) -> None:
        counts = self._own(name)
        self.own[name] = replace(counts, in_flight=counts.in_flight - 1, tokens=counts.tokens + tokens)

    def report(self) -> Report:
        """Return this replica's counts, and forget keys that nobody used for two minutes."""
        minute = self._minute()
        self.own = {name: now for name, counts in self.own.items() if not (now := counts.at(minute)).is_zero}
        return dict(self.own)

    def learn(self, others: Report) -> None:
        """Take the sum of what the other replicas counted."""
        self.others = others

    def lose_touch(self) -> None:
        """Take what the others have in flight as ended, for nobody says any more when it is; their minutes fade."""
        self.others = {name: replace(counts, in_flight=0) for name, counts in self.others.items()}

    def total(self, name: str) -> Counts:
        return self._own(name).plus(self.others.get(name, NOTHING)).at(self._minute())

    def requests(self, name: str, limit: int) -> Allowance:
        counts = self.total(name)
        return self._allowance("requests", limit, counts.requests, counts.last_requests)

    def tokens(self, name: str, limit: int) -> Allowance:
        counts = self.total(name)
        return self._allowance("tokens", limit, counts.tokens, counts.last_tokens)

    def _own(self, name: str) -> Counts:
        return self.own.get(name, NOTHING).at(self._minute())

    def _minute(self) -> int:
        return int(self.now_s() // WINDOW_S)

    def _allowance(self, what: str, limit: int, current: int, last: int) -> Allowance:
        elapsed_s = self.now_s() % WINDOW_S
        used = current + last * (1 - elapsed_s / WINDOW_S)
        remaining = max(0, math.floor(limit - used + ROUNDING))
        reset_s = 0 if remaining else seconds_until_free(limit, current, last, elapsed_s)
        return Allowance(what, limit, remaining, reset_s)


def seconds_until_free(limit: int, current: int, last: int, elapsed_s: float) -> int:
    """Return after how many seconds the window holds one less than `limit`, when nothing else is added."""
    if current < limit:  # the minute before is still in the way: it fades linearly
        left = WINDOW_S * (1 - (limit - 1 - current) / last) if last else WINDOW_S
        if left <= WINDOW_S:
            return max(1, math.ceil(left - elapsed_s))
    # The minute itself must end, and then fade.
    return max(1, math.ceil(WINDOW_S - elapsed_s + WINDOW_S * (1 - (limit - 1) / current)))


@dataclass
class Board:
    """Where the replicas meet: the last report of each. `now_s` is any steady clock."""

    stale_after_s: float
    now_s: Callable[[], float] = time.monotonic
    reports: dict[str, tuple[float, Report]] = field(default_factory=dict)
    gone: dict[str, Counts] = field(default_factory=dict)
    """What replicas used that are no more; it still counts in its minute."""

    def exchange(self, replica: str, report: Report) -> Report:
        """Take a replica's report, return the sum of all others."""
        now_s = self.now_s()
        self.reports[replica] = (now_s, report)
        for name, (at_s, _) in list(self.reports.items()):
            if now_s - at_s > self.stale_after_s:
                self._bury(name)
        return total_of([self.gone, *(theirs for name, (_, theirs) in self.reports.items() if name != replica)])

    def _bury(self, replica: str) -> None:
        _, report = self.reports.pop(replica)
        ended = {name: replace(counts, in_flight=0) for name, counts in report.items()}
        merged = total_of([self.gone, ended])
        minute = max((counts.minute for counts in merged.values()), default=0)
        self.gone = {name: now for name, counts in merged.items() if not (now := counts.at(minute)).is_zero}


def total_of(reports: list[Report] | list[dict[str, Counts]]) -> dict[str, Counts]:
    total: dict[str, Counts] = {}
    for report in reports:
        for name, counts in report.items():
            total[name] = total.get(name, NOTHING).plus(counts)
    return total
