"""A histogram as what Prometheus takes one for: totals called `_bucket` (with `le`), `_sum` and `_count`.

They are gauges to Ray, which has no counters that may be called so. Its sums would do for one report: it exports their
totals, and its agent adds each of these to the last.
"""

from collections.abc import Mapping, Sequence

from ray.util.metrics import Gauge

from deployments.tally import Totals


class HistogramGauges:
    """The gauges of one histogram; `bounds` are the upper ones of its buckets, `own` the tags that all values have."""

    def __init__(
        self,
        name: str,
        description: str,
        bounds: Sequence[float],
        tag_keys: Sequence[str],
        own: Mapping[str, str] | None = None,
    ) -> None:
        self._own = dict(own or {})
        keys = (*self._own, *tag_keys)
        self._le = (*map(str, map(float, bounds)), "+Inf")
        self._bucket = Gauge(f"{name}_bucket", description, (*keys, "le"))
        self._sum = Gauge(f"{name}_sum", description, keys)
        self.count = Gauge(f"{name}_count", description, keys)

    def set(self, totals: Totals, tags: Mapping[str, str]) -> None:
        """Tell Ray the totals. Zeros, too: a bucket that is missing makes quantiles wrong."""
        tags = {**self._own, **tags}
        for le, count in zip(self._le, totals.buckets, strict=True):
            self._bucket.set(count, {**tags, "le": le})
        self.count.set(totals.count, tags)
        self._sum.set(totals.sum, tags)
