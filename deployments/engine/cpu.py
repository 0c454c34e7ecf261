"""Which cores an engine replica computes on, so that replicas of one machine do not share them."""

import importlib.util
from pathlib import Path


def share_of_cores(cores: list[int], rank: int, replicas: int) -> list[int]:
    """Return the cores of replica `rank` of `replicas` on a machine: disjoint shares when there are enough, else all.

    `rank` counts from 0 and wraps around, since a replacement may get a number that its predecessor did not have.
    """
    if len(cores) < 2 * replicas or replicas == 1:
        return cores
    size = len(cores) // replicas
    begin = (rank % replicas) * size
    return cores[begin : begin + size]


def default_threads(cores: list[int]) -> int:
    """Leave one core to the processes around the engine: with OpenMP threads on all of them everything waits for it."""
    return max(1, len(cores) - 1)


def cpu_environment(cores: list[int], threads: int, is_own: bool) -> dict[str, str]:
    """Return the variables that set how many OpenMP threads vLLM uses, and where.

    is_own: nobody else computes on `cores`. Only then the threads are bound to them: vLLM's own "auto" binds every
    engine of a machine to the same cores, while others are idle. GOMP reads its affinity when the engine core loads it,
    so these must be set before that process is spawned.
    """
    environment = {"OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    if is_own:
        environment["GOMP_CPU_AFFINITY"] = " ".join(map(str, cores[:threads]))
    return environment


def core_environment(preloaded: str) -> dict[str, str]:
    """Return what vLLM sets for an engine core on CPU, and what must be there when its process starts.

    It does so late, when it knows its configuration. `preloaded` is LD_PRELOAD as it is.
    """
    found = [library for library in preloaded.split(":") if library]
    if not any(name in preloaded for name in ("libomp", "libgomp", "libiomp")):
        found += libraries("torch", ("../torch.libs", "lib"), "libgomp*.so*")
    if "libtcmalloc" not in preloaded:
        folders = ("libs",)
        found[:0] = libraries("vllm", folders, "libtcmalloc_minimal*.so*") or libraries(
            "vllm", folders, "libtcmalloc.so*"
        )
    environment = {"TORCHINDUCTOR_COMPILE_THREADS": "1", "TORCHINDUCTOR_CPP_DYNAMIC_THREADS": "1"}
    return environment | ({"LD_PRELOAD": ":".join(found)} if found else {})


def libraries(package: str, folders: tuple[str, ...], pattern: str) -> list[str]:
    """Return the first file in these folders of a package that is called so, as a list; the package is not imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    found = [path for folder in folders for path in (Path(spec.origin).parent / folder).glob(pattern)]
    return [str(path) for path in found[:1]]
