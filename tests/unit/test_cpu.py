import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engine.cpu import cpu_environment, default_threads, share_of_cores

OWN = sorted(os.sched_getaffinity(0))
OTHER = [max(OWN) + 1, max(OWN) + 2, max(OWN) + 3]


@given(st.sets(st.integers(0, 500), min_size=1, max_size=64), st.integers(2, 8))
def test_replicas_do_not_share_cores_when_there_are_enough(available: set[int], replicas: int) -> None:
    cores = sorted(available)
    shares = [share_of_cores(cores, rank, replicas) for rank in range(replicas)]
    if len(cores) < 2 * replicas:
        assert shares == [cores] * replicas
    else:
        used = [core for share in shares for core in share]
        assert len(used) == len(set(used))
        assert set(used) <= available
        assert {len(share) for share in shares} == {len(cores) // replicas}


def test_shares() -> None:
    assert [share_of_cores([0, 1, 2, 3, 4], rank, 2) for rank in (0, 1, 2)] == [[0, 1], [2, 3], [0, 1]]
    assert share_of_cores([4, 5, 6], 7, 1) == [4, 5, 6]


@pytest.mark.parametrize(("cores", "threads"), [([3], 1), ([0, 1], 1), ([0, 1, 2, 3], 3)])
def test_one_core_is_left_to_others_when_there_is_another(cores: list[int], threads: int) -> None:
    assert default_threads(cores) == threads


@pytest.mark.parametrize(("threads", "bound"), [(2, OTHER[:2]), (3, OTHER), (9, OTHER)])
def test_threads_are_bound_to_the_given_cores(threads: int, bound: list[int]) -> None:
    environment = cpu_environment(OTHER, threads)
    assert environment["OMP_NUM_THREADS"] == str(threads)
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == ",".join(map(str, bound))
    assert environment["GOMP_CPU_AFFINITY"] == " ".join(map(str, bound))


def test_openmp_is_left_to_itself_on_the_cores_that_the_process_has_anyway() -> None:
    assert "GOMP_CPU_AFFINITY" not in cpu_environment(OWN, len(OWN))
