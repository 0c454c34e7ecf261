from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engine.cpu import core_environment, cpu_environment, default_threads, share_of_cores


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


def test_threads_are_bound_to_cores_that_nobody_else_uses() -> None:
    environment = cpu_environment([4, 5, 6], 2, is_own=True)
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["GOMP_CPU_AFFINITY"] == "4 5"


def test_threads_on_shared_cores_are_left_to_the_kernel() -> None:
    environment = cpu_environment([0, 1], 1, is_own=False)
    assert environment == {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def test_what_vllm_preloads_is_there_before_its_process_starts() -> None:
    preloaded = core_environment("").get("LD_PRELOAD", "").split(":")
    assert any("libgomp" in Path(library).name for library in preloaded)
    assert all(Path(library).exists() for library in preloaded)


def test_what_is_preloaded_already_is_kept() -> None:
    given = "/nowhere/libiomp5.so:/nowhere/libtcmalloc.so"
    assert core_environment(given)["LD_PRELOAD"] == given
