"""vLLM is imported here: about five seconds."""

import warnings

import pytest

from deployments.types import EngineStats

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns while it is imported
    from vllm.v1.metrics.stats import SchedulerStats

    from deployments.engine.load import LoadRecorder, total_load


def recorder(num_running: int, num_waiting: int, kv_cache_usage: float) -> LoadRecorder:
    recorder = LoadRecorder(vllm_config=None)
    stats = SchedulerStats(num_running_reqs=num_running, num_waiting_reqs=num_waiting, kv_cache_usage=kv_cache_usage)
    recorder.record(stats, None)
    recorder.record(None, None)
    return recorder


@pytest.mark.parametrize(
    ("reports", "unfinished", "load"),
    [
        ([], 0, EngineStats(0, 0, 0.0)),
        ([], 2, EngineStats(0, 2, 0.0)),
        ([(3, 2, 0.5)], 5, EngineStats(3, 2, 0.5)),
        ([(3, 2, 0.5), (1, 0, 0.7)], 6, EngineStats(4, 2, 0.7)),
        ([(3, 2, 0.5)], 9, EngineStats(3, 6, 0.5)),
        ([(3, 2, 0.5)], 1, EngineStats(1, 0, 0.5)),
        ([(3, 2, 0.5)], 0, EngineStats(0, 0, 0.0)),
    ],
    ids=["new", "sent", "one core", "two cores", "more sent", "some aborted", "all aborted"],
)
def test_total_load(reports: list[tuple[int, int, float]], unfinished: int, load: EngineStats) -> None:
    assert total_load([recorder(*report) for report in reports], unfinished) == load
