import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from config.models import PROJECT_ROOT
from deployments.engine.early_core import EarlyCore, read_too_early

REPLICA = """
import contextlib, multiprocessing, os, signal, sys
import psutil, setproctitle
from deployments.engine.early_core import EarlyCore
from deployments.engine.plugin import register

def run_engine_core(connection, queue):
    register()
    setproctitle.setproctitle("VLLM::EngineCore")
    queue.put((os.environ.get("VLLM_LATE"), *psutil.Process().cmdline()))
    connection.send((os.getpid(), "json.tool" in sys.modules))
    if connection.recv() == "stay":
        signal.pause()
    sys.exit(3)

if __name__ == "__main__":
    early = EarlyCore(["json.tool"])
    spawn = multiprocessing.get_context("spawn")
    print(early.pid, flush=True)
    exec(sys.argv[1])
    ours, theirs = spawn.Pipe()
    queue = spawn.Queue()
    with early.used():
        others = spawn.Process(target=print, args=("another",))
        others.start()
        others.join()
        process = spawn.Process(target=run_engine_core, name="EngineCore", args=(theirs, queue))
        process.start()
    print(*ours.recv(), process.pid, *queue.get(), flush=True)
    ours.send(input())
    process.join()
    print(process.exitcode, flush=True)
"""


@pytest.fixture
def replica(tmp_path: Path) -> Path:
    path = tmp_path / "replica.py"
    path.write_text(REPLICA)
    return path


def start(replica: Path, between: str = "pass") -> "subprocess.Popen[str]":
    """Start a replica; `between` is what it does after the early process is there and before there is work for it."""
    return subprocess.Popen(
        [sys.executable, replica, between],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
    )


def test_the_early_process_does_the_work(replica: Path) -> None:
    with start(replica, "os.environ['VLLM_LATE'] = 'late'") as process:
        out, _ = process.communicate("end\n")
    early, another, found, exitcode = out.splitlines()
    assert another == "another"
    assert found.rstrip() == f"{early} True {early} late VLLM::EngineCore"
    assert exitcode == "3"


def test_a_variable_that_may_have_been_read_means_a_new_process(replica: Path) -> None:
    with start(replica, "os.environ['OMP_NUM_THREADS'] = '77'") as process:
        out, _ = process.communicate("end\n")
    early, _, found, exitcode = out.splitlines()
    pid, has_imported, same, *_ = found.split()
    assert pid == same != early
    assert has_imported == "False"
    assert exitcode == "3"


def test_an_early_process_that_is_lost_is_replaced(replica: Path) -> None:
    with start(replica, "os.kill(early.pid, signal.SIGKILL)") as process:
        out, _ = process.communicate("end\n")
    early, _, found, exitcode = out.splitlines()
    assert found.split()[0] != early
    assert exitcode == "3"


def test_it_ends_with_its_replica_at_work_or_not(replica: Path) -> None:
    for between in ("pass", "signal.pause()"):
        with start(replica, between) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            core = psutil.Process(int(process.stdout.readline()))
            if between == "pass":
                process.stdin.write("stay\n")
                process.stdin.flush()
                assert process.stdout.readline() == "another\n"
                assert process.stdout.readline().split()[0] == str(core.pid)
            process.kill()
            gone, _ = psutil.wait_procs([core], timeout=30)
        assert gone == [core]


def test_one_without_work_is_ended() -> None:
    early = EarlyCore(["json.tool"])
    with early.used():
        assert psutil.pid_exists(early.pid)
    assert early.pid not in {child.pid for child in psutil.Process().children()}
    early.close()  # a second time


@pytest.mark.parametrize(
    ("here", "wanted", "changed"),
    [
        ({"A": "1"}, {"A": "1"}, set()),
        ({"A": "1"}, {"A": "2"}, {"A"}),
        ({"A": "1"}, {}, {"A"}),
        ({}, {"LD_PRELOAD": "x"}, {"LD_PRELOAD"}),
        ({}, {"VLLM_A": "1", "LOCAL_WORLD_SIZE": "1", "RAY_ADDRESS": "a"}, set()),
    ],
)
def test_what_was_read_too_early(here: dict[str, str], wanted: dict[str, str], changed: set[str]) -> None:
    assert read_too_early(here, wanted) == changed
