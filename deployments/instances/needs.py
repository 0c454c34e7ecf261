"""What a replica of an instance needs of the cluster, against what there is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from config.models import ModelSettings
from deployments.errors import InsufficientResourcesError, NoRoomError

Resources = Mapping[str, float]
"""Ray's names: "CPU", "GPU", "memory" (bytes), and those of the cluster's own."""

WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.gguf")
TOLERANCE = 1e-6
"""Ray counts in ten-thousandths, and adds them up as floats."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What one replica reserves."""

    bundles: tuple[Resources, ...]
    """Each of them on one node."""
    on_one_node: bool = False
    memory_bytes: int = 0
    """What the CPU build takes beside what Ray knows; 0: unknown, or on a GPU."""

    def placed(self) -> "Needs":
        """Return what it still needs once Ray has reserved its resources: memory, which it takes while it loads."""
        return Needs((), memory_bytes=self.memory_bytes)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What there is, a node after the other."""

    total: tuple[Resources, ...]
    free: tuple[Resources, ...]
    can_grow: bool = True
    """It has an autoscaler, or nobody knows."""
    total_memory_bytes: int | None = None
    """Of the machine, when the cluster is one machine; None: unknown."""
    free_memory_bytes: int | None = None


def to_needs(
    actor_options: Mapping[str, Any],
    bundles: Sequence[Resources] | None = None,
    strategy: str | None = None,
    memory_bytes: int = 0,
) -> Needs:
    """Read what one replica reserves from Serve's options of its deployment.

    actor_options: `ray_actor_options`. bundles, strategy: its placement group; then the actor lies in the first bundle.
    memory_bytes: what it takes without a GPU.
    """
    if not bundles:
        own = {"CPU": actor_options.get("num_cpus", 1), "GPU": actor_options.get("num_gpus")}
        own |= {"memory": actor_options.get("memory"), **(actor_options.get("resources") or {})}
        bundles, strategy = [{name: float(value) for name, value in own.items() if value}], "STRICT_PACK"
    has_gpus = any(bundle.get("GPU") for bundle in bundles)
    return Needs(tuple(bundles), strategy == "STRICT_PACK", 0 if has_gpus else memory_bytes)


def require_room(needs: Needs, cluster: Cluster, retry_after_s: int) -> None:
    """Refuse a replica that has no room.

    Raises InsufficientResourcesError when the whole cluster is too small and does not grow, NoRoomError when
    too little of it is free; both say what is missing.
    """
    if not fits(needs, cluster.total):
        if cluster.can_grow:
            return
        raise InsufficientResourcesError(f"The instance needs {_shortage(needs, cluster.total, 'the cluster has')}.")
    if cluster.total_memory_bytes is not None and needs.memory_bytes > cluster.total_memory_bytes:
        has = f"the machine has {_gib(cluster.total_memory_bytes)}"
        raise InsufficientResourcesError(f"The instance needs {_gib(needs.memory_bytes)} of memory, {has}.")
    missing = "" if cluster.can_grow or fits(needs, cluster.free) else _shortage(needs, cluster.free, "free is")
    if needs.memory_bytes and cluster.free_memory_bytes is not None and needs.memory_bytes > cluster.free_memory_bytes:
        missing = f"{_gib(needs.memory_bytes)} of memory, free is {_gib(max(0, cluster.free_memory_bytes))}"
    if missing:
        raise NoRoomError(f"The instance needs {missing}. Retry later.", None, retry_after_s)


def fits(needs: Needs, nodes: Sequence[Resources]) -> bool:
    """Say whether there is a node for each bundle."""
    return _place(needs, nodes) is not None


def less(cluster: Cluster, needs: Iterable[Needs]) -> Cluster:
    """Return what is left for others once replicas that are starting have taken what they need."""
    free, memory_bytes = cluster.free, 0
    for each in needs:
        free = _place(each, free) or free  # what has no room waits, and takes nothing
        memory_bytes += each.memory_bytes
    left_bytes = None if cluster.free_memory_bytes is None else cluster.free_memory_bytes - memory_bytes
    return replace(cluster, free=free, free_memory_bytes=left_bytes)


def _place(needs: Needs, nodes: Sequence[Resources]) -> tuple[Resources, ...] | None:
    """Return what is left of the nodes, None when there is too little; large bundles choose first."""
    bundles = [_sum(needs.bundles)] if needs.on_one_node else list(needs.bundles)
    left = [dict(node) for node in nodes]
    for bundle in sorted(bundles, key=_size, reverse=True):
        node = next((node for node in left if _holds(node, bundle)), None)
        if node is None:
            return None
        for name, amount in bundle.items():
            node[name] = node.get(name, 0) - amount
    return tuple(left)


def weights_bytes(model: str, root: Path) -> int:
    """Return the size of a model's weights that lie in a folder, 0 when they have to be fetched first."""
    folder = root / Path(model).expanduser()
    for pattern in WEIGHTS:  # several formats of the same weights may lie there; one is loaded
        if size := sum(file.stat().st_size for file in folder.glob(pattern)):
            return size
    return folder.stat().st_size if folder.is_file() else 0


def cpu_memory_bytes(settings: ModelSettings, root: Path) -> int:
    """Return what the CPU build takes for KV cache and weights; 0 when that is not known.

    root: what a relative path of a model is relative to.
    """
    given = {**settings.cpu.engine_args, **settings.engine_args}
    arguments = {name.replace("-", "_"): value for name, value in given.items()}
    kv_cache = arguments.get("kv_cache_memory_bytes")
    if settings.backend != "vllm" or not isinstance(kv_cache, int):
        return 0
    return kv_cache + weights_bytes(str(arguments.get("model", "")), root)


def _shortage(needs: Needs, nodes: Sequence[Resources], have: str) -> str:
    """Say the first resource that there is too little of, such as "2 GPUs, the cluster has 1"."""
    wanted, there = _sum(needs.bundles), _sum(nodes)
    for name, amount in sorted(wanted.items(), reverse=True):  # GPUs before CPUs: it is they that are rare
        if amount > there.get(name, 0) + TOLERANCE:
            return f"{_amount(name, amount)}, {have} {_bare(name, there.get(name, 0))}"
    each = " and ".join(_amount(name, amount) for name, amount in sorted(max(needs.bundles, key=_size).items()))
    together = " and ".join(_amount(name, amount) for name, amount in sorted(wanted.items()))
    return f"{together if needs.on_one_node else each} on one node, and no node has so much{' free' * (have[0] == 'f')}"


def _holds(node: Resources, bundle: Resources) -> bool:
    return all(node.get(name, 0) + TOLERANCE >= amount for name, amount in bundle.items())


def _sum(resources: Sequence[Resources]) -> dict[str, float]:
    names = {name for each in resources for name in each}
    return {name: sum(each.get(name, 0) for each in resources) for name in names}


def _size(bundle: Resources) -> tuple[float, float]:
    return bundle.get("GPU", 0), sum(bundle.values())


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{_gib(amount)} of memory"
    return f"{amount:g} {name}{'' if amount == 1 else 's'}" if name in ("CPU", "GPU") else f"{amount:g} of {name}"


def _bare(name: str, amount: float) -> str:
    return _gib(amount) if name == "memory" else f"{round(amount, 4):g}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
