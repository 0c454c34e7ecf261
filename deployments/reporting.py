"""Metrics that note what happens to them, and tell Ray once a second.

Telling Ray one number costs 3 us here and 11 us in its agent, where each value of a histogram is taken by itself and
replaced by its bucket's middle. A request has a dozen of them, a token a few.
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from deployments.tally import Tally, Totals

logger = logging.getLogger("ray.serve")

REPORT_S = 1.0
"""Ray's own report to its agent is made every few seconds."""
REPEATED_EVERY = 4
"""So many reports: a gauge that is not set again within 10 s is gone from Ray's next one."""
MAX_SETS = 2_000
"""Sets of tags of one gauge that Ray exports. OpenTelemetry puts all beyond them into one, each in place of the last
(`AttributesHashMap` in opentelemetry-cpp 1.19)."""
FORGOTTEN_AFTER = 600
"""So many reports: nobody has asked for ten minutes."""
OTHER = "other"

Tags = frozenset[tuple[str, str]]


class Reported(Protocol):
    def report(self) -> None:
        """Tell Ray what is new. Called in a thread of its own."""


class Gauge(Protocol):
    def set(self, value: float, tags: dict[str, str]) -> None: ...


class Counter(Protocol):
    def inc(self, value: float, tags: dict[str, str]) -> None: ...


class Gauges(Protocol):
    """Those of a histogram; see `histogram_gauges.py`."""

    def set(self, totals: Totals, tags: Mapping[str, str]) -> None: ...


class KeptGauge:
    """A gauge that has its last values until its process ends."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._values: dict[Tags, float] = {}

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        self._values[to_key(tags)] = value

    def report(self) -> None:
        for tags, value in self._values.copy().items():
            self._gauge.set(value, dict(tags))


class SummedCounter:
    """A counter; what has come since the last report is told as one sum."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._totals: dict[Tags, float] = {}
        self._told: dict[Tags, float] = {}

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        key = to_key(tags)
        self._totals[key] = self._totals.get(key, 0.0) + value

    def report(self) -> None:
        for tags, total in self._totals.copy().items():
            if news := total - self._told.get(tags, 0.0):
                self._counter.inc(news, dict(tags))
                self._told[tags] = total


class Series:
    """A histogram with one set of tags."""

    def __init__(self, gauges: Gauges, bounds: Sequence[float], tags: Mapping[str, str]) -> None:
        self._gauges = gauges
        self._tags = tags
        self._tally = Tally(bounds)
        self.add = self._tally.add
        self._told: Totals | None = None
        self.num_unchanged = 0
        """Reports since a value came."""

    def report(self) -> None:
        totals = self._tally.totals()
        self.num_unchanged = self.num_unchanged + 1 if totals == self._told else 0
        if self.num_unchanged % REPEATED_EVERY == 0:
            self._gauges.set(totals, self._tags)
            self._told = totals


class SummedHistogram:
    """A histogram whose sum is exact.

    It has as many series as Ray exports. When there are more, one that got no value for FORGOTTEN_AFTER reports makes
    room; while there is none, values count as those of a series whose tags are all `other`.
    """

    def __init__(self, name: str, gauges: Gauges, bounds: Sequence[float]) -> None:
        self._name = name
        self._gauges = gauges
        self._bounds = bounds
        self._max_series = MAX_SETS // (len(bounds) + 1)
        self._series: dict[Tags, Series] = {}
        self._may_have_room = True
        self._has_overflowed = False

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        key = to_key(tags)
        (self._series.get(key) or self._begin(key)).add(value)

    def report(self) -> None:
        for series in self._series.copy().values():
            series.report()
        self._may_have_room = True

    def _begin(self, key: Tags) -> Series:
        if len(self._series) >= self._max_series - 1 and not self._make_room():
            key = frozenset((name, OTHER) for name, _ in key)
            self._say_once()
        if key not in self._series:
            self._series[key] = Series(self._gauges, self._bounds, dict(key))
        return self._series[key]

    def _make_room(self) -> bool:
        if self._may_have_room:
            oldest = max(self._series, key=lambda key: self._series[key].num_unchanged)
            if self._series[oldest].num_unchanged >= FORGOTTEN_AFTER:
                del self._series[oldest]
                return True
            self._may_have_room = False  # until the next report: not to be looked for at each value
        return False

    def _say_once(self) -> None:
        if not self._has_overflowed:
            logger.warning("%s has %d series; further ones count as `%s`", self._name, self._max_series, OTHER)
        self._has_overflowed = True


def to_key(tags: Mapping[str, str] | None) -> Tags:
    return frozenset(tags.items()) if tags else frozenset()


_REPORTED: list[Reported] = []
_BEGINNING = threading.Lock()


def report_also(metric: Reported) -> None:
    """Have a metric report every REPORT_S until the process ends. By a thread: an event loop may be late."""
    with _BEGINNING:
        _REPORTED.append(metric)
        if len(_REPORTED) == 1:
            threading.Thread(target=_report_for_ever, args=(threading.Event(),), name="metrics", daemon=True).start()


def _report_for_ever(end: threading.Event) -> None:
    failed: set[int] = set()
    while not end.wait(REPORT_S):
        report_all(_REPORTED, failed)


def report_all(metrics: Iterable[Reported], failed: set[int]) -> None:
    """Have each metric tell Ray what is new; one that cannot is logged once, and hinders no other.

    `failed` has the ids of those that were logged.
    """
    for metric in tuple(metrics):
        try:
            metric.report()
        except Exception:
            if id(metric) not in failed:
                logger.exception("a metric cannot be reported: %r", metric)
                failed.add(id(metric))
