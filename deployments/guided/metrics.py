"""What the GuidedCompiler tells Prometheus. Serve adds the replica to each of them."""

from deployments import telemetry
from deployments.guided.verdicts import Outcome, Source
from deployments.guided_types import CompilerStats


class Metrics:
    """A Recorder. Made in a replica, or its metrics would not carry the replica's name."""

    def __init__(self) -> None:
        self._answers = telemetry.GUIDED_ANSWERS.make()
        self._compilations = telemetry.GUIDED_COMPILATIONS.make()
        self._took_s = telemetry.GUIDED_COMPILATION_S.make()
        self._waited_s = telemetry.GUIDED_WAITING_S.make()
        self._gauges = {
            "num_under_way": telemetry.GUIDED_UNDER_WAY.make(),
            "num_cached": telemetry.GUIDED_CACHED.make(),
            "cache_bytes": telemetry.GUIDED_CACHE_BYTES.make(),
            "num_quarantined": telemetry.GUIDED_QUARANTINED.make(),
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
