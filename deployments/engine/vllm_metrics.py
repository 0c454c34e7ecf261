"""vLLM's metrics through Ray, told once a second instead of at every token."""

from typing import Any

from vllm.v1.metrics.ray_wrappers import (
    RayCounterWrapper,
    RayGaugeWrapper,
    RayPrometheusMetric,
    RayPrometheusStatLogger,
)

from deployments.histogram_gauges import HistogramGauges
from deployments.reporting import Series, report_also


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
            report_also(child)
        return self._children[key]

    def begin(self) -> None:
        raise NotImplementedError

    def report(self) -> None:
        raise NotImplementedError


class Gauge(Deferred, RayGaugeWrapper):  # type: ignore[misc]
    def begin(self) -> None:
        self._news: float | None = None

    def set(self, value: float) -> None:
        if self.is_deferred:
            self._news = value
        else:
            super().set(value)

    def report(self) -> None:
        """Tell Ray the last value of those that came. An engine that makes no steps sets none, and Ray drops the gauge:
        what it said last need not hold, after an abort for example."""
        news, self._news = self._news, None
        if news is not None:
            super().set(news)


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
        self._gauges = HistogramGauges(name, documentation, self._bounds, keys)
        self.metric = self._gauges.count

    def begin(self) -> None:
        self._series = Series(self._gauges, self._bounds, self._tags)

    def observe(self, value: float) -> None:
        self._series.add(value)

    def report(self) -> None:
        self._series.report()


class EngineMetrics(RayPrometheusStatLogger):  # type: ignore[misc]
    """vLLM's Prometheus logger for Ray, with the metrics above."""

    _gauge_cls = Gauge
    _counter_cls = Counter
    _histogram_cls = Histogram
