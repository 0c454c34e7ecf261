"""Every metric that this project exports, in one list: docs and dashboards are generated from it.

vLLM's own come through Ray as well; they are vLLM's to name.
"""

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["counter", "gauge", "histogram"]

SECONDS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""Upper bounds of the buckets of a time."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; Ray puts `ray_` before its name, and Serve adds application, deployment and replica as tags."""

    name: str
    kind: Kind
    meaning: str
    tags: tuple[str, ...] = ()
    unit: str = ""
    """Of its values, if it is no count."""

    def make(self) -> Any:
        """Return it as Serve's Counter, Gauge or Histogram. Only in a replica, or it would not name the replica."""
        from ray.serve import metrics

        if self.kind == "histogram":
            return metrics.Histogram(self.name, self.meaning, boundaries=list(SECONDS), tag_keys=self.tags)
        kinds = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        return kinds[self.kind](self.name, self.meaning, self.tags)


GUIDED_ANSWERS = Metric(
    "vllm_graph_guided_answers",
    "counter",
    "Requests for a constraint: answered from the cache or by quarantine, or waiting for a compilation.",
    ("source",),
)
GUIDED_COMPILATIONS = Metric(
    "vllm_graph_guided_compilations",
    "counter",
    "Compilations that ended: compiled, refused, costly (it crashed or took too long), unavailable (no actor did it), "
    "left (nobody waited any more).",
    ("outcome", "compiler"),
)
GUIDED_COMPILATION_S = Metric(
    "vllm_graph_guided_compilation_seconds",
    "histogram",
    "How long a compilation took, waiting for an actor included.",
    ("outcome", "compiler"),
    "s",
)
GUIDED_WAITING_S = Metric(
    "vllm_graph_guided_waiting_seconds",
    "histogram",
    "How much of the time for an artifact was none of its compiler's: waiting for an actor.",
    (),
    "s",
)
GUIDED_UNDER_WAY = Metric("vllm_graph_guided_under_way", "gauge", "Compilations that wait for an actor or have one.")
GUIDED_CACHED = Metric("vllm_graph_guided_cached_verdicts", "gauge", "Verdicts in the cache.")
GUIDED_CACHE_BYTES = Metric("vllm_graph_guided_cache_bytes", "gauge", "What they take, about.", (), "bytes")
GUIDED_QUARANTINED = Metric("vllm_graph_guided_quarantined", "gauge", "Constraints refused without another try.")

REQUEST_S = Metric(
    "vllm_graph_request_seconds",
    "histogram",
    "From a request's first byte to the last byte of its answer, for requests that a model answered to the end.",
    ("model",),
    "s",
)
REQUEST_LAYER_S = Metric(
    "vllm_graph_request_layer_seconds",
    "histogram",
    "How much of that one layer took; the layers of a request add up to the whole.",
    ("model", "layer"),
    "s",
)
LOOP_LAG_S = Metric(
    "vllm_graph_event_loop_lag_seconds",
    "gauge",
    "How late the event loop of a replica came to what was due, at worst since the last report.",
    (),
    "s",
)

METRICS = (
    REQUEST_S,
    REQUEST_LAYER_S,
    LOOP_LAG_S,
    GUIDED_ANSWERS,
    GUIDED_COMPILATIONS,
    GUIDED_COMPILATION_S,
    GUIDED_WAITING_S,
    GUIDED_UNDER_WAY,
    GUIDED_CACHED,
    GUIDED_CACHE_BYTES,
    GUIDED_QUARANTINED,
)
