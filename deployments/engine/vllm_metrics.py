"""vLLM's metrics through Ray, told once a second instead of at every token.

Telling Ray one number costs 3 us, and vLLM has a few of them for each token and fifteen for each step. Ray's agent then
takes every value of a histogram by itself, 11 us each, and replaces it by its bucket's middle. So histograms are sums
here, of the names that Prometheus gives the parts of one: `_bucket` with `le`, `_sum`, `_count`. Queries find what they
found before, and `_sum` is exact. Only the type in the exposition format is another one, gauge.
"""

import threading
from typing import Any

from ray.util.metrics import CythonSum, Metric
from vllm.v1.metrics.ray_wrappers import (
    RayCounterWrapper,
    RayGaugeWrapper,
    RayPrometheusMetric,
    RayPrometheusStatLogger,
)

from deployments.engine.tally import Tally

REPORT_S = 1.0
"""Ray's own report to its agent is made every few seconds."""


class Deferred(RayPrometheusMetric):  # type: ignore[misc]
    """A metric of vLLM's wrappers that notes its changes and tells Ray when it is asked to.

    That is so for what `labels` with values returns: those are a fixed few. Metrics labelled by name are seldom set,
    and what they say may not be repeated for ever. Changed in one thread, reported in another: whatever is noted only
    grows or is replaced, never taken away, so no lock is needed.
    """

    is_deferred = False

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._children: dict[tuple[str, ...], Any] = {}

    def labels(self, *values: Any, **named: Any) -> Any:
        if not values:
            return super().labels(**named)
        key = tuple(map(str, values))
        if key not in self._children:
            child = self._children[key] = super().labels(*values)
            child.is_deferred = True
            child.begin()
            REPORTED.append(child)
        return self._children[key]

    def begin(self) -> None:
        raise NotImplementedError

    def report(self) -> None:
        raise NotImplementedError


REPORTED: list[Deferred] = []


class Gauge(Deferred, RayGaugeWrapper):  # type: ignore[misc]
    def begin(self) -> None:
        self._value: float | None = None

    def set(self, value: float) -> None:
        if self.is_deferred:
            self._value = value
        else:
            super().set(value)

    def report(self) -> None:
        """Tell Ray the value, also when it has not changed: it forgets gauges that are not set again."""
        if self._value is not None:
            super().set(self._value)


class Counter(Deferred, RayCounterWrapper):  # type: ignore[misc]
    def begin(self) -> None:
        self._total = self._told = 0.0

    def inc(self, value: float = 1.0) -> None:
        if self.is_deferred:
            self._total += value
        else:
            super().inc(value)

    def report(self) -> None:
        total = self._total
        super().inc(total - self._told)
        self._told = total


class Sum(Metric):  # type: ignore[misc]
    """Ray's sum, which has no class in Python of its own. Unlike a counter's, its name gets no `_total`."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        super().__init__(name, description, tag_keys)
        self._metric = CythonSum(name, description, tag_keys)

    def add(self, value: float, tags: dict[str, str]) -> None:
        self._record(value, tags)


class Histogram(Deferred):
    def __init__(
        self,
        name: str,
        documentation: str = "",
        labelnames: list[str] | None = None,
        buckets: list[float] | None = None,
    ) -> None:
        super().__init__()
        name, keys = self._get_sanitized_opentelemetry_name(name), self._get_tag_keys(labelnames)
        self._bounds = tuple(map(float, buckets or ()))
        self._le = (*map(str, self._bounds), "+Inf")
        self._bucket = Sum(f"{name}_bucket", documentation, (*keys, "le"))
        self._sum = Sum(f"{name}_sum", documentation, keys)
        self.metric = self._count = Sum(f"{name}_count", documentation, keys)

    def begin(self) -> None:
        self._tally = Tally(self._bounds)
        self._is_known = False

    def observe(self, value: float) -> None:
        self._tally.add(value)

    def report(self) -> None:
        """Tell Ray what is new; the first time also zeros, for a bucket that is missing makes quantiles wrong."""
        news = self._tally.news()
        if self._is_known and not (news.count or news.total):
            return
        self._is_known = True
        for le, count in zip(self._le, news.buckets, strict=True):
            self._bucket.add(count, {**self._tags, "le": le})
        self._count.add(news.count, self._tags)
        self._sum.add(news.total, self._tags)


class EngineMetrics(RayPrometheusStatLogger):  # type: ignore[misc]
    """vLLM's Prometheus logger for Ray, with the metrics above."""

    _gauge_cls = Gauge
    _counter_cls = Counter
    _histogram_cls = Histogram

    def __init__(self, vllm_config: Any, engine_indexes: list[int] | None = None) -> None:
        super().__init__(vllm_config, engine_indexes)
        threading.Thread(target=report_for_ever, args=(threading.Event(),), name="vllm-metrics", daemon=True).start()


def report_for_ever(end: threading.Event) -> None:
    while not end.wait(REPORT_S):
        report_all()


def report_all() -> None:
    """Tell Ray what has changed."""
    for metric in tuple(REPORTED):
        metric.report()
