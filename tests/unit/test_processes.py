"""Processes that hang do not end by themselves, nor do theirs."""

import subprocess
import sys
from pathlib import Path

import psutil

from config.models import PROJECT_ROOT
from tests.harness import eventually

HANGS = """
import os, signal, subprocess, sys
inner = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
open(sys.argv[1], "w").write(f"{os.getpid()} {inner.pid}\\n")
inner.send_signal(signal.SIGSTOP)
os.kill(os.getpid(), signal.SIGSTOP)
"""
PARENT = """
import multiprocessing.resource_tracker, subprocess, sys
from deployments.engine.processes import kill_children
multiprocessing.resource_tracker.ensure_running()
subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]])
input()
kill_children()
print(multiprocessing.resource_tracker._resource_tracker._check_alive(), flush=True)
"""


def test_children_and_theirs_are_killed_though_they_hang(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", PARENT, HANGS, str(pids)]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            eventually(lambda: pids.exists() and pids.read_text().endswith("\n"), "the children are there", 30)
            hung = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
            eventually(lambda: all(process.status() == psutil.STATUS_STOPPED for process in hung), "they hang", 30)
            output, _ = parent.communicate("go\n", timeout=30)
        finally:
            for process in psutil.Process(parent.pid).children(recursive=True) if parent.poll() is None else []:
                process.kill()
            parent.kill()
    assert output == "True\n", "the resource tracker lives"
    assert psutil.wait_procs(hung, timeout=30)[1] == []
