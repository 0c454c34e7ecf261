"""The engine's load as vLLM's scheduler reports it, kept for autoscaling."""

from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from deployments.types import EngineStats


class LoadRecorder(StatLoggerBase):
    """A vLLM stat logger that remembers the last report of one engine core."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self.stats = EngineStats(0, 0, 0.0)

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        if scheduler_stats is not None:
            self.stats = EngineStats(
                scheduler_stats.num_running_reqs, scheduler_stats.num_waiting_reqs, scheduler_stats.kv_cache_usage
            )

    def log_engine_initialized(self) -> None:
        """Nothing to log: vLLM's own loggers do."""


def total_load(recorders: list[LoadRecorder]) -> EngineStats:
    """Sum the load over a replica's engine cores; the fullest KV cache counts."""
    stats = [recorder.stats for recorder in recorders]
    return EngineStats(
        sum(report.num_running for report in stats),
        sum(report.num_waiting for report in stats),
        max((report.kv_cache_usage for report in stats), default=0.0),
    )
