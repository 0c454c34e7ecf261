import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from deployments.engine.autoscaling import EngineLoadPolicy, desired_replicas

DEPLOYMENT = DeploymentID("Engine", "model-demo")


def desired(
    requests: float = 0, kv_cache_usage: tuple[float, ...] = (), busy_replicas: int = 0, target_kv: float = 0.8
) -> int:
    return desired_replicas(
        requests=requests,
        target_requests=10,
        kv_cache_usage=list(kv_cache_usage),
        target_kv_cache_usage=target_kv,
        busy_replicas=busy_replicas,
    )


@pytest.mark.parametrize(("requests", "replicas"), [(0, 0), (0.1, 1), (10, 1), (10.5, 2), (95, 10)])
def test_as_many_as_the_requests_need(requests: float, replicas: int) -> None:
    assert desired(requests) == replicas


@pytest.mark.parametrize(
    ("usage", "replicas"), [((), 0), ((0.0,), 0), ((0.5,), 1), ((0.9,), 2), ((0.9, 0.9), 3), ((0.9, 0.1), 2)]
)
def test_as_many_as_the_kv_cache_needs(usage: tuple[float, ...], replicas: int) -> None:
    assert desired(kv_cache_usage=usage) == replicas


def test_never_fewer_than_are_busy() -> None:
    assert desired(requests=3, busy_replicas=3) == 3


@given(
    st.floats(0, 1000, allow_subnormal=False),
    st.lists(st.floats(0, 1, allow_subnormal=False), max_size=8).map(tuple),
    st.integers(0, 8),
    st.floats(0.1, 1),
)
def test_no_target_is_exceeded(requests: float, usage: tuple[float, ...], busy: int, target_kv: float) -> None:
    replicas = desired(requests, usage, busy, target_kv)
    assert replicas >= busy
    assert requests <= 10 * replicas
    assert sum(usage) <= target_kv * replicas * (1 + 1e-6)


def context(metrics: dict[str, list[float]] | None, total_num_requests: float) -> AutoscalingContext:
    replicas = [ReplicaID(f"r{index}", DEPLOYMENT) for index in range(8)]
    by_replica = {name: dict(zip(replicas, values, strict=False)) for name, values in (metrics or {}).items()}
    return AutoscalingContext(
        deployment_id=DEPLOYMENT,
        deployment_name="Engine",
        app_name="model-demo",
        current_num_replicas=2,
        target_num_replicas=2,
        running_replicas=replicas[:2],
        total_num_requests=total_num_requests,
        total_queued_requests=0.0,
        aggregated_metrics=None if metrics is None else by_replica,
        raw_metrics=None,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=8,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=0.0,
        config=AutoscalingConfig(min_replicas=1, max_replicas=8, target_ongoing_requests=10),
    )


@pytest.mark.parametrize(
    ("metrics", "total_num_requests", "replicas"),
    [
        (None, 0, 0),
        (None, 25, 3),
        ({}, 25, 3),
        ({"num_running": [10, 10], "num_waiting": [5, 0]}, 0, 3),
        ({"num_running": [10, 10], "num_waiting": [5, 0]}, 25, 3),
        ({"num_running": [10, 10], "num_waiting": [5, 0]}, 41, 5),
        ({"num_running": [1, 1, 1], "num_waiting": [0, 0, 0]}, 3, 3),
        ({"num_running": [1, 1], "kv_cache_usage": [0.9, 0.9]}, 2, 3),
    ],
)
def test_policy_reads_what_serve_gives_it(
    metrics: dict[str, list[float]] | None, total_num_requests: float, replicas: int
) -> None:
    assert EngineLoadPolicy(target_kv_cache_usage=0.8)(context(metrics, total_num_requests)) == (replicas, {})


def test_a_kv_cache_exactly_at_its_target_needs_no_more() -> None:
    wanted = desired_replicas(
        requests=0, target_requests=1, kv_cache_usage=[0.8] * 3, target_kv_cache_usage=0.8, busy_replicas=0
    )
    assert wanted == 3
