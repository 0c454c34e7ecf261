"""An engine core's process that is started before it is needed: it imports vLLM while the replica does.

Python's `spawn` starts a process when there is work for it, so that the imports of the replica and those of its engine
core, seconds each, come one after the other. Here the process is there first, and is handed its work.
"""

import contextlib
import io
import multiprocessing.context
import multiprocessing.popen_spawn_posix
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from multiprocessing import reduction, resource_tracker, spawn, util
from multiprocessing.process import BaseProcess
from typing import Any

IMPORTED = ("vllm.v1.engine.core",)
ENGINE_CORE = "EngineCore"
"""What vLLM calls the process; with data parallelism only the first of several is there early."""
READ_LATE = ("VLLM_", "AITER_", "LOCAL_WORLD_SIZE", "NUMEXPR_MAX_THREADS", "RAY_ADDRESS")
"""Beginnings of variables that vLLM sets for its engine core, and that nothing has read when vLLM is only imported."""
READY = b"r"
ACCEPT_TIMEOUT_S = 120.0
"""How long it may take to import; then an ordinary process is started in its place."""
MAX_FDS = 64
LENGTH = struct.Struct("!Q")


class EarlyCore:
    """A process that imports what an engine core does, and waits for its work."""

    def __init__(self, imported: Sequence[str] = IMPORTED) -> None:
        self._link, theirs = socket.socketpair()
        self._sentinel, theirs_alive = os.pipe()
        tracker_fd = resource_tracker.getfd()
        assert tracker_fd is not None
        code = f"import sys; sys.path[:] = {sys.path!r}; "
        code += f"from {__name__} import main; main({theirs.fileno()}, {tracker_fd}, {imported!r})"
        self._executable = spawn.get_executable()
        command = [sys.executable, "-c", code, "--multiprocessing-fork"]
        self.pid = util.spawnv_passfds(
            os.fsencode(self._executable), command, [theirs.fileno(), theirs_alive, tracker_fd]
        )
        theirs.close()
        os.close(theirs_alive)
        self._is_used = False

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Have the first engine core that vLLM starts within the block be this process; ends it when none was."""
        context: Any = multiprocessing.context.SpawnProcess
        original = context._Popen

        def popen(process: BaseProcess) -> Any:
            is_ours = process.name.startswith(ENGINE_CORE) and spawn.get_executable() == self._executable
            if is_ours and not self._is_used and self._accepts():
                self._is_used = True
                return HandedOver(process, self.pid, self._link, self._sentinel)
            return original(process)

        context._Popen = staticmethod(popen)
        try:
            yield
        finally:
            context._Popen = staticmethod(original)
            self.close()

    def close(self) -> None:
        """End the process unless it has work."""
        if self._is_used or self._link.fileno() < 0:
            return
        self._link.close()
        os.close(self._sentinel)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _accepts(self) -> bool:
        """Ask, once it has imported everything, whether it can be what vLLM wants now."""
        environment = pickle.dumps(dict(os.environ))
        self._link.settimeout(ACCEPT_TIMEOUT_S)
        try:
            self._link.sendall(LENGTH.pack(len(environment)) + environment)
            return self._link.recv(1) == READY
        except OSError:
            return False
        finally:
            self._link.settimeout(None)


class ReceivedFd:
    """A file descriptor of the replica's, as the engine core has it."""

    received: tuple[int, ...] = ()

    def __init__(self, index: int) -> None:
        self._index = index

    def detach(self) -> int:
        return self.received[self._index]


class HandedOver(multiprocessing.popen_spawn_posix.Popen):
    """What `spawn` does, for a process that runs already: its file descriptors come through a socket."""

    DupFd = ReceivedFd  # type: ignore[assignment]
    _fds: list[int]

    def __init__(self, process: BaseProcess, pid: int, link: socket.socket, sentinel: int) -> None:
        self.pid, self.sentinel, self._link = pid, sentinel, link
        super().__init__(process)

    def duplicate_for_child(self, fd: int) -> int:
        self._fds.append(fd)
        return len(self._fds) - 1

    def _launch(self, process: BaseProcess) -> None:
        work = io.BytesIO()
        multiprocessing.context.set_spawning_popen(self)
        try:
            reduction.dump(spawn.get_preparation_data(process.name), work)
            reduction.dump(process, work)
        finally:
            multiprocessing.context.set_spawning_popen(None)
        if self._fds:
            socket.send_fds(self._link, [bytes([len(self._fds)])], self._fds)
        else:
            self._link.sendall(bytes([0]))
        self._link.sendall(work.getbuffer())
        # Open as long as this process lives: the engine core notices its end by it.
        close_fds: Any = util.close_fds  # type: ignore[attr-defined]
        self.finalizer = util.Finalize(self, close_fds, [self._link.detach(), self.sentinel])


def main(fd: int, tracker_fd: int, imported: Sequence[str]) -> None:
    """Import, wait for work and do it; ends when this process is not wanted, or cannot be used."""
    resource_tracker._resource_tracker._fd = tracker_fd  # type: ignore[attr-defined]  # as `spawn_main` does
    for name in imported:
        import_module(name)
    link = socket.socket(fileno=fd)
    head = link.recv(LENGTH.size, socket.MSG_WAITALL)
    if len(head) < LENGTH.size:
        return  # the replica has ended, or started none
    environment = pickle.loads(link.recv(LENGTH.unpack(head)[0], socket.MSG_WAITALL))
    if changed := read_too_early(os.environ, environment):
        sys.exit(f"the engine core is started anew, because vLLM has changed {', '.join(sorted(changed))}")
    # Only what differs: a process title is written over the arguments, which are found by the first variable.
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(dict(environment.items() - os.environ.items()))
    link.sendall(READY)
    count, fds, _, _ = socket.recv_fds(link, 1, MAX_FDS)
    if not count:
        return
    ReceivedFd.received = tuple(fds)
    sys.exit(spawn._main(link.detach(), os.dup(fd)))


def read_too_early(here: Mapping[str, str], wanted: Mapping[str, str]) -> set[str]:
    """Return the variables that are not as `wanted`, and that an import may have read already."""
    differing = {name for name in here.keys() | wanted.keys() if here.get(name) != wanted.get(name)}
    return {name for name in differing if not name.startswith(READ_LATE)}
