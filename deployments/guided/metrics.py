"""What the GuidedCompiler tells Prometheus. Serve adds the replica to each of them."""

from ray.serve.metrics import Counter, Gauge, Histogram

from deployments.guided.verdicts import Outcome, Source
from deployments.guided_types import CompilerStats

SECONDS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
"""Upper bounds of the buckets."""


class Metrics:
    """A Recorder. Made in a replica, or its metrics would not carry the replica's name."""

    def __init__(self) -> None:
        self._answers = Counter(
            "vllm_graph_guided_answers",
            "Requests for a constraint: answered from the cache or by quarantine, or waiting for a compilation.",
            ("source",),
        )
        self._compilations = Counter(
            "vllm_graph_guided_compilations",
            "Compilations that ended: compiled, refused, costly (it crashed or took too long), unavailable (no actor "
            "did it), left (nobody waited any more).",
            ("outcome", "compiler"),
        )
        self._took_s = Histogram(
            "vllm_graph_guided_compilation_seconds",
            "How long a compilation took, waiting for an actor included.",
            boundaries=SECONDS,
            tag_keys=("outcome", "compiler"),
        )
        self._waited_s = Histogram(
            "vllm_graph_guided_waiting_seconds",
            "How much of the time for an artifact was none of its compiler's: waiting for an actor.",
            boundaries=SECONDS,
        )
        self._gauges = {
            "num_under_way": Gauge("vllm_graph_guided_under_way", "Compilations that wait for an actor or have one."),
            "num_cached": Gauge("vllm_graph_guided_cached_verdicts", "Verdicts in the cache."),
            "cache_bytes": Gauge("vllm_graph_guided_cache_bytes", "What they take, about."),
            "num_quarantined": Gauge("vllm_graph_guided_quarantined", "Constraints refused without another try."),
        }

    def answered(self, source: Source) -> None:
        self._answers.inc(tags={"source": source})

    def compiled(self, outcome: Outcome, compiler: str, took_s: float, waited_s: float) -> None:
        tags = {"outcome": outcome, "compiler": compiler}
        self._compilations.inc(tags=tags)
        self._took_s.observe(took_s, tags=tags)
        if outcome == "compiled":
            self._waited_s.observe(waited_s)

    def holds(self, stats: CompilerStats) -> None:
        for name, gauge in self._gauges.items():
            gauge.set(getattr(stats, name))
