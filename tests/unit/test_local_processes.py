import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from deployments.local_processes import (
    HAPROXY_NAME,
    MARKER,
    REPLICA_TITLE,
    STOP_TIMEOUT_S,
    end_cluster,
    has_ended,
    kill,
    marked_processes,
    tree,
    wait_for_serve,
)

WAITS = "input()"
RAY = """
import signal, subprocess, sys
import setproctitle

def waits(title):
    code = f"import setproctitle, signal; setproctitle.setproctitle({title!r}); print(flush=True); signal.pause()"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)

def end(signum, frame):
    for process in served:
        process.kill()

served = [waits(title) for title in sys.argv[1:]]
orphan = subprocess.Popen([sys.executable, "-c", "import signal; print(flush=True); signal.pause()"],
                          stdout=subprocess.PIPE, start_new_session=True)
for process in (*served, orphan):
    process.stdout.readline()
signal.signal(signal.SIGTERM, end)
print(flush=True)
while True:
    signal.pause()
"""
"""Like Ray: it asks what serves to end, and would wait for ever for the rest."""


def start(code: str, *arguments: str, marker: str = "none") -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    environment = {**os.environ, MARKER: marker}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdin=pipe, stdout=pipe, env=environment)


def test_marked_processes_are_those_with_our_marker() -> None:
    with start(WAITS, marker="this-test") as process:
        assert [found.pid for found in marked_processes("this-test")] == [process.pid]
        assert marked_processes("another-test") == []
        process.communicate(b"\n")
    assert marked_processes("this-test") == []


def test_a_cluster_ends_with_all_it_started() -> None:
    with start(RAY, HAPROXY_NAME, f"{REPLICA_TITLE}model-a:Engine", marker="ended") as ray:
        assert ray.stdout is not None
        ray.stdout.readline()
        begun = tree(ray.pid)
        assert len(begun) == 4
        end_cluster(ray, "ended", draining_s=STOP_TIMEOUT_S)
        assert ray.returncode is not None
    assert all(map(has_ended, begun))
    assert marked_processes("ended") == []


def test_who_is_served_is_waited_for() -> None:
    with start(WAITS) as process:
        front = psutil.Process(process.pid)
        front_name = front.name()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("deployments.local_processes.HAPROXY_NAME", front_name)
            patch.setattr("deployments.local_processes.STOP_TIMEOUT_S", 0.2)
            begin_s = time.monotonic()
            wait_for_serve([front], 0)
            assert time.monotonic() - begin_s >= 0.2
        process.communicate(b"\n")
    wait_for_serve([front], 0)


def test_a_process_that_nobody_has_asked_for_its_end_has_ended() -> None:
    with start(WAITS) as process:
        found = psutil.Process(process.pid)
        assert not has_ended(found)
        os.kill(process.pid, signal.SIGKILL)
        kill([found])  # a second time
        assert has_ended(found)
        assert process.returncode is None
    assert has_ended(found)
    assert tree(process.pid) == []
