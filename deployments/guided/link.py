"""The process that forks, as an asyncio program sees it: started, told what to do, heard, and ended."""

import asyncio
import subprocess

import msgspec

from config.guided import GuidedSettings
from deployments.child_process import start_python
from deployments.guided.wire import Command, Event, Frames, encode

SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""What computes with several threads would start them before anybody forks."""


class CompilerCrashedError(Exception):
    """The process that forks has ended, or hangs. The constraint may have nothing to do with it."""


class Link(asyncio.Protocol):
    """One such process; made by `start`."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._frames = Frames()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._commands: asyncio.WriteTransport | None = None
        self._heard: asyncio.BaseTransport | None = None
        self.is_alive = True

    @classmethod
    async def start(cls, settings: GuidedSettings) -> "Link":
        program = ("-m", "deployments.guided.forks", settings.model_dump_json())
        link = cls(start_python(*program, environment=SINGLE_THREADED))
        loop = asyncio.get_running_loop()
        try:
            link._heard, _ = await loop.connect_read_pipe(lambda: link, link._process.stdout)
            link._commands, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, link._process.stdin)
        except BaseException:
            link.close()
            raise
        return link

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, command: Command) -> None:
        """Have something done; does not wait. What is sent to a dead process is lost."""
        if self._commands is not None and not self._commands.is_closing():
            self._commands.write(encode(command))

    async def next(self, timeout_s: float) -> Event:
        """Return what happened next; raises TimeoutError, or CompilerCrashedError when the process has ended."""
        async with asyncio.timeout(max(0.0, timeout_s)):
            event = await self._events.get()
        if event is None:
            raise CompilerCrashedError("the process that compiles constraints has ended")
        return event

    def close(self) -> None:
        """Kill it; its jobs end with it."""
        self.is_alive = False
        for transport in (self._commands, self._heard):
            if transport is not None:
                transport.close()
        self._process.kill()
        self._process.wait()

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._frames.feed(data):
                self._events.put_nowait(msgspec.msgpack.decode(message, type=Event))
        except (ValueError, msgspec.MsgspecError):
            self._process.kill()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_alive = False
        self._events.put_nowait(None)
