"""How many replicas a model needs, from what its engines report. Named in the YAML as the autoscaling policy."""

import math
from collections.abc import Mapping
from typing import Any

RUNNING, WAITING, KV_CACHE = "num_running", "num_waiting", "kv_cache_usage"


class EngineLoadPolicy:
    """A Serve autoscaling policy (https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html).

    target_kv_cache_usage: mean share of KV-cache blocks in use above which a replica is added, 0 to 1.
    Serve applies the delays, factors and bounds of `autoscaling_config` to the answer.
    """

    def __init__(self, target_kv_cache_usage: float = 0.8) -> None:
        self._target_kv_cache_usage = target_kv_cache_usage

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        metrics = ctx.aggregated_metrics or {}
        running, waiting, kv_cache = (_by_replica(metrics, name) for name in (RUNNING, WAITING, KV_CACHE))
        # What waits at handles has not reached an engine yet; what the engines hold is in both counts.
        requests = max(sum(running.values()) + sum(waiting.values()), float(ctx.total_num_requests))
        wanted = desired_replicas(
            requests=requests,
            target_requests=float(ctx.config.get_target_ongoing_requests()),
            kv_cache_usage=list(kv_cache.values()),
            target_kv_cache_usage=self._target_kv_cache_usage,
            busy_replicas=sum(1 for value in running.values() if value > 0),
        )
        return wanted, {}


def desired_replicas(
    *,
    requests: float,
    target_requests: float,
    kv_cache_usage: list[float],
    target_kv_cache_usage: float,
    busy_replicas: int,
) -> int:
    """Return the replicas needed so that neither requests nor KV cache exceed their targets.

    Never fewer than are busy: a replica whose streams run is not scaled away.
    """
    for_requests = math.ceil(requests / target_requests)
    for_kv_cache = math.ceil(round(sum(kv_cache_usage) / target_kv_cache_usage, 9))
    return max(for_requests, for_kv_cache, busy_replicas)


def _by_replica(metrics: Mapping[str, Mapping[Any, float]], name: str) -> Mapping[Any, float]:
    return metrics.get(name) or {}
