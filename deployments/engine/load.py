"""The engine's load as vLLM's scheduler reports it, kept for autoscaling."""

import time
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from deployments.types import EngineStats


class LoadRecorder(StatLoggerBase):  # type: ignore[misc]
    """A vLLM stat logger that remembers the last report of one engine core. vLLM calls `record` after every step."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self.stats = EngineStats(0, 0, 0.0)
        self.last_step_s = time.monotonic()

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        self.last_step_s = time.monotonic()
        if scheduler_stats is not None:
            self.stats = EngineStats(
                scheduler_stats.num_running_reqs, scheduler_stats.num_waiting_reqs, scheduler_stats.kv_cache_usage
            )

    def log_engine_initialized(self) -> None:
        """Nothing to log: vLLM's own loggers do."""


def total_load(recorders: list[LoadRecorder], unfinished: int) -> EngineStats:
    """Sum the load over a replica's engine cores; the fullest KV cache counts.

    unfinished: requests that the replica has sent to its engine and not seen end. The scheduler reports only while it
    computes, so after an abort its last report stands for ever: this count is the truth, the reports divide it.
    """
    reports = [recorder.stats for recorder in recorders]
    running = min(unfinished, sum(report.num_running for report in reports))
    kv_cache_usage = max((report.kv_cache_usage for report in reports), default=0.0) if unfinished else 0.0
    return EngineStats(running, unfinished - running, kv_cache_usage)
