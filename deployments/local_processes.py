"""The processes of a cluster on this machine: how they are found, and how they end."""

import contextlib
import signal
import subprocess
import time

import psutil

MARKER = "VLLM_GRAPH_CLUSTER"
STOP_TIMEOUT_S = 10
POLL_S = 0.05
CONTROLLER_S = 1.0
"""Beyond the draining period: Serve's controller looks about so often."""
REPLICA_TITLE = "ray::ServeReplica:"
HAPROXY_NAME = "haproxy"


def end_cluster(ray: "subprocess.Popen[bytes]", marker: str, draining_s: float) -> None:
    """End `ray start`, then whatever is left of it: when Ray is killed, HAProxy stays and keeps its port.

    Streams under way have STOP_TIMEOUT_S to end. draining_s: how long a replica stays that has nothing to do.
    """
    begun = tree(ray.pid)
    ray.send_signal(signal.SIGTERM)  # Ray drains the node, and Serve its replicas: it would replace them for ever
    wait_for_serve(begun, draining_s + CONTROLLER_S)
    kill([*tree(ray.pid), *begun])
    # Going down, Serve still starts HAProxy anew, so what is left is looked for when everything else is gone.
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while (left := marked_processes(marker)) and time.monotonic() < deadline:
        kill(left)
    ray.wait(STOP_TIMEOUT_S)


def wait_for_serve(begun: list[psutil.Process], grace_s: float) -> None:
    """Wait until nobody is served any more and replicas have ended, but for these no longer than `grace_s`.

    HAProxy ends with the last of its streams. A replica may take longer for what nobody waits for.
    """
    fronts = [process for process in begun if title(process, "name") == HAPROXY_NAME]
    replicas = [process for process in begun if title(process, "cmdline").startswith(REPLICA_TITLE)]
    begin_s = time.monotonic()
    while (elapsed_s := time.monotonic() - begin_s) < STOP_TIMEOUT_S:
        if all(map(has_ended, fronts)) and (elapsed_s > grace_s or all(map(has_ended, replicas))):
            return
        time.sleep(POLL_S)


def title(process: psutil.Process, source: str) -> str:
    """Return a process's `name` or `cmdline`, "" when it has ended."""
    try:
        return process.name() if source == "name" else " ".join(process.cmdline())
    except psutil.Error:
        return ""


def has_ended(process: psutil.Process) -> bool:
    """Say whether a process is gone; also when nobody has asked yet how it ended, which an init may never do."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def kill(processes: list[psutil.Process]) -> None:
    """Kill processes and wait until they have ended; those that have already are passed over."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while not all(map(has_ended, processes)) and time.monotonic() < deadline:
        time.sleep(POLL_S)


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all under it, parents first; nothing when there is no such process."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def marked_processes(marker: str) -> list[psutil.Process]:
    """Return the processes that were started with our marker in their environment, orphans too.

    Not all of ours: those that set a process title overwrite the environment that others can read.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARKER) == marker:
                found.append(process)
    return found
