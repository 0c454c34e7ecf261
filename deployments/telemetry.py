"""Every metric that this project exports, in one list: docs and dashboards are generated from it.

vLLM's own come through Ray as well; they are vLLM's to name.
"""

from dataclasses import dataclass
from typing import Any, Literal

from deployments.reporting import KeptGauge, SummedCounter, SummedHistogram, report_also

Kind = Literal["counter", "gauge", "histogram"]

SECONDS = tuple(digit * scale for scale in (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 100.0) for digit in (1, 2, 5))[1:-1]
"""Upper bounds of the buckets of a time."""
COARSE_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
"""The same, where there are a dozen series per model: see MAX_SETS in `reporting.py`."""
START_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Upper bounds of the buckets of an engine's start."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; Ray puts `ray_` before its name, and Serve adds application, deployment and replica as tags."""

    name: str
    kind: Kind
    meaning: str
    tags: tuple[str, ...] = ()
    unit: str = ""
    """Of its values, if it is no count."""
    bounds: tuple[float, ...] = SECONDS
    """Upper bounds of the buckets of a histogram."""

    @property
    def exported_name(self) -> str:
        """The name in Prometheus; of a histogram without `_bucket`, `_sum`, `_count`."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"

    def make(self) -> Any:
        """Return it as a SummedCounter, a SummedHistogram or a KeptGauge.

        Only in a replica, or it would not name the replica.
        """
        from ray.serve import get_replica_context, metrics

        from deployments.histogram_gauges import HistogramGauges

        made: SummedCounter | SummedHistogram | KeptGauge
        if self.kind == "histogram":
            replica = get_replica_context()
            own = {
                "deployment": replica.deployment,
                "replica": replica.replica_tag,
                "application": replica.app_name,
            }
            gauges = HistogramGauges(self.name, self.meaning, self.bounds, self.tags, own)
            made = SummedHistogram(self.name, gauges, self.bounds)
        elif self.kind == "counter":
            made = SummedCounter(metrics.Counter(self.name, self.meaning, self.tags))
        else:
            made = KeptGauge(metrics.Gauge(self.name, self.meaning, self.tags))
        report_also(made)
        return made


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

REQUESTS = Metric(
    "vllm_graph_requests",
    "counter",
    "HTTP requests that have ended. Status: 0 when the client left before any was sent. Error: its code or type, also "
    "of a stream that broke off; client_left; empty when there was none, or the engine itself has answered it.",
    ("route", "model", "status", "error"),
)
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
    COARSE_SECONDS,
)
LOOP_LAG_S = Metric(
    "vllm_graph_event_loop_lag_seconds",
    "gauge",
    "How late the event loop of a replica came to what was due, at worst since the last report.",
    (),
    "s",
)

INSTANCES = Metric(
    "vllm_graph_instances",
    "gauge",
    "Instances made over the API: stopped, starting, running, restarting, shutting_down, failed.",
    ("state",),
)
INSTANCE_STARTS = Metric(
    "vllm_graph_instance_starts",
    "counter",
    "Starts that ended: ready, failed, or given_up (it was stopped before).",
    ("model", "outcome"),
)
INSTANCE_START_S = Metric(
    "vllm_graph_instance_start_seconds",
    "histogram",
    "From when an instance was to run, or the one that it replaces had gone, until it was ready.",
    ("model",),
    "s",
    START_SECONDS,
)
INSTANCE_ENDS = Metric(
    "vllm_graph_instance_ends",
    "counter",
    "Instances that had to go: asked (its owner stops it), idle, evicted (another one needs the room), restart, "
    "crashed (or did not start).",
    ("model", "why"),
)

WRITING_S = Metric(
    "vllm_graph_writing_seconds",
    "histogram",
    "How long the Tokenizer took for a question of a writing tool, calls of the engine included. Question: highlights, "
    "branches, logprobs, revisions. Outcome: answered, left (nobody waited any more), or the error's code or type.",
    ("model", "question", "outcome"),
    "s",
    COARSE_SECONDS,
)
WRITING_PROMPT_TOKENS = Metric(
    "vllm_graph_writing_prompt_tokens",
    "counter",
    "Prompt tokens that engines were given for these questions, cached ones included.",
    ("model", "question"),
    "tokens",
)

METRICS = (
    REQUESTS,
    REQUEST_S,
    REQUEST_LAYER_S,
    LOOP_LAG_S,
    INSTANCES,
    INSTANCE_STARTS,
    INSTANCE_START_S,
    INSTANCE_ENDS,
    WRITING_S,
    WRITING_PROMPT_TOKENS,
    GUIDED_ANSWERS,
    GUIDED_COMPILATIONS,
    GUIDED_COMPILATION_S,
    GUIDED_WAITING_S,
    GUIDED_UNDER_WAY,
    GUIDED_CACHED,
    GUIDED_CACHE_BYTES,
    GUIDED_QUARANTINED,
)
