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
        self._num_silent = 0

    def report(self) -> None:
        totals = self._tally.totals()
        self._num_silent += 1
        if totals != self._told or self._num_silent >= REPEATED_EVERY:
            self._gauges.set(totals, self._tags)
            self._told, self._num_silent = totals, 0


class SummedHistogram:
    """A histogram whose sum is exact."""

    def __init__(self, gauges: Gauges, bounds: Sequence[float]) -> None:
        self._gauges = gauges
        self._bounds = bounds
        self._series: dict[Tags, Series] = {}

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        key = to_key(tags)
        if key not in self._series:
            self._series[key] = Series(self._gauges, self._bounds, dict(key))
        self._series[key].add(value)

    def report(self) -> None:
        for series in self._series.copy().values():
            series.report()


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
