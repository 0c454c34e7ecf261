from typing import Any

import pytest

from config.models import Backend, Device, ModelSettings
from deployments.engine.resources import choose_device, engine_options, gpus_per_replica


@pytest.mark.parametrize(
    ("backend", "device", "cluster_gpus", "chosen"),
    [
        ("vllm", "auto", 0, "cpu"),
        ("vllm", "auto", 1, "gpu"),
        ("vllm", "auto", 0.5, "gpu"),
        ("vllm", "cpu", 8, "cpu"),
        ("vllm", "gpu", 8, "gpu"),
        ("vllm", "gpu", 0, "gpu"),
        ("fake", "auto", 8, "cpu"),
        ("fake", "gpu", 8, "cpu"),
    ],
)
def test_choose_device(backend: Backend, device: Device, cluster_gpus: float, chosen: str) -> None:
    assert choose_device(ModelSettings(name="m", backend=backend, device=device), lambda: cluster_gpus) == chosen


@pytest.mark.parametrize(
    ("engine_args", "count"),
    [
        ({}, 1),
        ({"tensor_parallel_size": 4}, 4),
        ({"tensor-parallel-size": 2, "pipeline-parallel-size": 3}, 6),
        ({"tensor_parallel_size": "2", "data_parallel_size": 2}, 4),
        ({"tensor_parallel_size": None}, 1),
    ],
)
def test_gpus_per_replica(engine_args: dict[str, Any], count: int) -> None:
    assert gpus_per_replica(engine_args) == count
    options = engine_options(ModelSettings(name="m", engine_args=engine_args), "gpu")
    assert options["ray_actor_options"]["num_gpus"] == count
    assert "placement_group_bundles" not in options


@pytest.mark.parametrize("name", ["distributed_executor_backend", "distributed-executor-backend"])
def test_workers_on_other_nodes_get_a_bundle_each(name: str) -> None:
    settings = ModelSettings(
        name="m", engine_args={"tensor_parallel_size": 2, "pipeline_parallel_size": 2, name: "ray"}
    )
    options = engine_options(settings, "gpu")
    replica, *workers = options["placement_group_bundles"]
    assert "GPU" not in replica
    assert [bundle["GPU"] for bundle in workers] == [1.0] * 4
    assert "num_gpus" not in options.get("ray_actor_options", {})


def test_a_cpu_engine_asks_for_no_gpu() -> None:
    options = engine_options(ModelSettings(name="m", engine_args={"tensor_parallel_size": 2}), "cpu")
    assert not options.get("ray_actor_options", {}).get("num_gpus")
    assert "placement_group_bundles" not in options
