import multiprocessing
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import psutil

from config.models import PROJECT_ROOT
from deployments.engine import plugin

REPLICA = """
import multiprocessing, signal
from deployments.engine import plugin

def engine_core():
    plugin.register()
    print(multiprocessing.current_process().pid, flush=True)
    while True:
        signal.pause()

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=engine_core).start()
    signal.pause()
"""


def test_vllm_finds_it() -> None:
    (entry,) = entry_points(group="vllm.general_plugins", name="vllm_graph")
    assert entry.load() is plugin.register


def test_an_engine_core_ends_when_its_replica_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "replica.py"
    path.write_text(REPLICA)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
    with subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, text=True, env=environment) as replica:
        assert replica.stdout is not None
        core = psutil.Process(int(replica.stdout.readline()))
        replica.kill()
        gone, _ = psutil.wait_procs([core], timeout=30)
    assert gone == [core]


def test_a_process_that_nobody_spawned_is_left_alone() -> None:
    assert multiprocessing.parent_process() is None
    plugin.register()
