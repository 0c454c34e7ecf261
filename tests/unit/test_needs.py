from pathlib import Path
from typing import Any

import pytest

from config.models import CpuSettings, ModelSettings
from deployments.engine.resources import engine_options
from deployments.errors import EngineUnavailableError, InsufficientResourcesError
from deployments.instances.needs import (
    Cluster,
    Needs,
    cpu_memory_bytes,
    fits,
    less,
    require_room,
    to_needs,
    weights_bytes,
)

GIB = 2**30
NODE = {"CPU": 8.0, "GPU": 2.0, "memory": 64.0 * GIB}


def needs_of(**engine_args: Any) -> Needs:
    options = engine_options(ModelSettings(name="m", engine_args=engine_args), "gpu")
    return to_needs(
        options["ray_actor_options"], options.get("placement_group_bundles"), options.get("placement_group_strategy")
    )


def cluster(*total: dict[str, float], free: list[dict[str, float]] | None = None, **fields: Any) -> Cluster:
    return Cluster(total, tuple(total if free is None else free), **{"can_grow": False, **fields})


@pytest.mark.parametrize(
    ("actor_options", "bundle"),
    [
        ({"num_cpus": 0.5, "num_gpus": 2}, {"CPU": 0.5, "GPU": 2}),
        ({}, {"CPU": 1}),
        ({"num_cpus": 0}, {}),
        ({"num_cpus": 1, "memory": GIB, "resources": {"TPU": 4}}, {"CPU": 1, "memory": GIB, "TPU": 4}),
    ],
)
def test_what_an_actor_reserves(actor_options: dict[str, Any], bundle: dict[str, float]) -> None:
    assert to_needs(actor_options) == Needs((bundle,), True)


def test_what_a_placement_group_reserves() -> None:
    needs = needs_of(tensor_parallel_size=2, distributed_executor_backend="ray")
    assert needs == Needs(({"CPU": 1}, {"CPU": 1, "GPU": 1}, {"CPU": 1, "GPU": 1}), False)


def test_the_machines_memory_matters_without_a_gpu_only() -> None:
    assert to_needs({"num_cpus": 1}, memory_bytes=GIB).memory_bytes == GIB
    assert to_needs({"num_gpus": 1}, memory_bytes=GIB).memory_bytes == 0


@pytest.mark.parametrize(
    ("engine_args", "nodes", "does"),
    [
        ({"tensor_parallel_size": 2}, [NODE], True),
        ({"tensor_parallel_size": 3}, [NODE], False),
        ({"tensor_parallel_size": 4}, [NODE, NODE], False),
        ({"tensor_parallel_size": 4, "distributed_executor_backend": "ray"}, [NODE, NODE], True),
        ({"tensor_parallel_size": 5, "distributed_executor_backend": "ray"}, [NODE, NODE], False),
        ({}, [], False),
    ],
)
def test_fits(engine_args: dict[str, Any], nodes: list[dict[str, float]], does: bool) -> None:
    assert fits(needs_of(**engine_args), nodes) is does


def test_large_bundles_choose_their_node_first() -> None:
    assert fits(Needs(({"CPU": 1.0}, {"CPU": 1.0}, {"CPU": 3.0})), [{"CPU": 3.0}, {"CPU": 2.0}])


def test_a_strict_pack_lies_on_one_node() -> None:
    bundles = [{"GPU": 1.0}, {"GPU": 1.0}]
    assert not fits(to_needs({}, bundles, "STRICT_PACK"), [{"GPU": 1.0}, {"GPU": 1.0}])
    assert fits(to_needs({}, bundles, "PACK"), [{"GPU": 1.0}, {"GPU": 1.0}])


def test_fractions_that_add_up_fit() -> None:
    assert fits(Needs(({"CPU": 0.1},) * 3), [{"CPU": 0.3}])


def test_what_has_room_is_let_pass() -> None:
    require_room(needs_of(tensor_parallel_size=2), cluster(NODE), 5)


@pytest.mark.parametrize(
    ("needs", "total", "words"),
    [
        (needs_of(tensor_parallel_size=2), [{"CPU": 8.0, "GPU": 1.0}], "needs 2 GPUs, the cluster has 1."),
        (needs_of(), [{"CPU": 8.0}], "needs 1 GPU, the cluster has 0."),
        (Needs(({"CPU": 1.5},)), [{"CPU": 1.0}], "needs 1.5 CPUs, the cluster has 1."),
        (Needs(({"TPU": 4.0},)), [NODE], "needs 4 of TPU, the cluster has 0."),
        (Needs(({"memory": 128.0 * GIB},)), [NODE], "needs 128.00 GiB of memory, the cluster has 64.00 GiB."),
        (
            needs_of(tensor_parallel_size=4),
            [NODE, NODE],
            "needs 1 CPU and 4 GPUs on one node, and no node has so much.",
        ),
        (Needs(({"CPU": 1.0},), True, 2 * GIB), [NODE], "needs 2.00 GiB of memory, the machine has 1.00 GiB."),
    ],
)
def test_what_can_never_run_is_409(needs: Needs, total: list[dict[str, float]], words: str) -> None:
    with pytest.raises(InsufficientResourcesError) as refused:
        require_room(needs, cluster(*total, total_memory_bytes=GIB, free_memory_bytes=GIB), 5)
    assert refused.value.message == f"The instance {words}"


@pytest.mark.parametrize(
    ("needs", "free", "words"),
    [
        (needs_of(tensor_parallel_size=2), {"CPU": 8.0, "GPU": 1.0}, "needs 2 GPUs, free is 1."),
        (needs_of(), {}, "needs 1 GPU, free is 0."),
        (Needs(({"CPU": 1.0},), True, GIB), NODE, "needs 1.00 GiB of memory, free is 0.50 GiB."),
    ],
)
def test_what_cannot_run_now_is_503_with_retry_after(needs: Needs, free: dict[str, float], words: str) -> None:
    there = cluster(NODE, free=[free], total_memory_bytes=2 * GIB, free_memory_bytes=GIB // 2)
    with pytest.raises(EngineUnavailableError) as refused:
        require_room(needs, there, 5)
    assert refused.value.message == f"The instance {words} Retry later."
    assert refused.value.retry_after_s == 5


def test_a_cluster_that_grows_is_not_asked() -> None:
    require_room(needs_of(tensor_parallel_size=8), cluster(NODE, free=[{}], can_grow=True), 5)
    require_room(needs_of(), cluster(NODE, free=[{}], can_grow=True), 5)


def test_memory_of_a_cpu_engine(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "one.safetensors").write_bytes(b"x" * 100)
    (folder / "two.safetensors").write_bytes(b"x" * 50)
    (folder / "same.bin").write_bytes(b"x" * 999)
    settings = ModelSettings(name="m", engine_args={"model": "model", "kv-cache-memory-bytes": 1000})
    assert cpu_memory_bytes(settings, tmp_path) == 1150
    assert cpu_memory_bytes(settings.model_copy(update={"backend": "fake"}), tmp_path) == 0


def test_memory_that_nobody_knows_is_not_counted(tmp_path: Path) -> None:
    settings = ModelSettings(name="m", engine_args={"model": "owner/model"}, cpu=CpuSettings(engine_args={}))
    assert cpu_memory_bytes(settings, tmp_path) == 0
    assert weights_bytes("owner/model", tmp_path) == 0


def test_weights_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"x" * 7)
    assert weights_bytes("model.gguf", tmp_path) == 7
    assert weights_bytes(str(tmp_path), Path("/")) == 7


def test_what_is_starting_takes_what_looks_free() -> None:
    one_gpu = needs_of()
    there = less(cluster(NODE), [one_gpu])
    assert there.free[0]["GPU"] == 1
    require_room(one_gpu, there, 5)
    with pytest.raises(EngineUnavailableError, match="needs 1 GPU, free is 0"):
        require_room(one_gpu, less(there, [one_gpu]), 5)
    assert less(there, [needs_of(tensor_parallel_size=2)]).free == there.free


def test_what_is_placed_but_loads_still_takes_memory() -> None:
    loading = Needs(({"CPU": 8.0},), True, GIB).placed()
    there = less(cluster(NODE, total_memory_bytes=4 * GIB, free_memory_bytes=2 * GIB), [loading])
    assert (there.free, there.free_memory_bytes) == ((NODE,), GIB)
    require_room(Needs(({"CPU": 8.0},), True, GIB), there, 5)
    with pytest.raises(EngineUnavailableError, match=r"needs 1\.50 GiB of memory, free is 1\.00 GiB"):
        require_room(Needs(({"CPU": 8.0},), True, 3 * GIB // 2), there, 5)
    require_room(needs_of(), less(there, [loading, loading]), 5)
