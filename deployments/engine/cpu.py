"""Which cores an engine replica computes on, so that replicas of one machine do not share them."""


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
