"""The process that forks: holds compilers and vocabularies in memory, and makes a process of each job.

It has one thread, so that forking is safe, which it is not in an actor. It ends when its actor does: the pipe between
them closes. What a job does cannot harm it: jobs have limits, are killed when they are late, and only send bytes.
"""

import gc
import logging
import os
import selectors
import signal
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from config.guided import GuidedSettings
from deployments.guided.compilers import LoadedVocabulary, import_xgrammar_alone
from deployments.guided.jobs import run_job
from deployments.guided.memory import give_back
from deployments.guided.wire import (
    CHUNK_BYTES,
    Command,
    End,
    Ended,
    Event,
    Frames,
    Ready,
    Reported,
    Start,
    Taught,
    Teach,
    encode,
    frame,
    send,
)

logger = logging.getLogger("guided")

WITH_EVERYTHING = "import xgrammar; from deployments.guided.forks import main; main()"
"""This program where xgrammar finds PyTorch and transformers."""


MOST_REPORTS = 16
"""Far more than any job makes."""
MOST_AROUND_ARTIFACT_BYTES = 2**20
"""What a report has besides an artifact, or instead of one: a grammar for llguidance, a message."""


STARVED_SHARE = 0.2
"""A late job that had a processor for less of its time is not to blame: the machine is busy."""


@dataclass(slots=True)
class Job:
    """A forked process that is under way."""

    number: int
    pid: int
    reader: int
    """The file descriptor where its reports arrive."""
    timeout_s: float
    deadline_s: float
    frames: Frames
    num_reports: int = 0


class Forker:
    """Reads commands from one file descriptor, and writes what becomes of them to another."""

    def __init__(self, settings: GuidedSettings, commands: int, events: int) -> None:
        self._settings = settings
        self._commands = commands
        self._events = events
        self._frames = Frames()
        self._vocabularies: OrderedDict[str, LoadedVocabulary] = OrderedDict()
        self._jobs: dict[int, Job] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(commands, selectors.EVENT_READ)

    def run(self) -> None:
        """Work until the commands end."""
        self._say(Ready())
        while True:
            for key, _ in self._selector.select(self._patience_s()):
                if key.fd != self._commands:
                    self._hear(key.data)
                elif not self._obey():
                    return
            now_s = time.monotonic()
            for job in [job for job in self._jobs.values() if job.deadline_s <= now_s]:
                self._kill(job, "late")

    def _patience_s(self) -> float | None:
        if not self._jobs:
            return None
        return max(0.0, min(job.deadline_s for job in self._jobs.values()) - time.monotonic())

    def _obey(self) -> bool:
        """Do what has been asked for; returns False when nothing will be any more."""
        data = os.read(self._commands, CHUNK_BYTES)
        for message in self._frames.feed(data):
            command = msgspec.msgpack.decode(message, type=Command)
            if isinstance(command, Teach):
                self._teach(command)
            elif isinstance(command, Start):
                self._start(command)
            elif command.job in self._jobs:
                self._kill(self._jobs[command.job], "killed")
        return bool(data)

    def _teach(self, command: Teach) -> None:
        fingerprint = command.vocabulary.fingerprint
        try:
            self._vocabularies[fingerprint] = LoadedVocabulary(command.vocabulary)
        except Exception as error:
            logger.exception("a vocabulary cannot be read")
            self._say(Taught(fingerprint, str(error) or type(error).__name__))
            return
        while len(self._vocabularies) > self._settings.max_vocabularies:
            self._vocabularies.popitem(last=False)
        gc.collect()
        give_back()
        gc.freeze()  # jobs would copy all that is here, only to look for garbage in it
        self._say(Taught(fingerprint))

    def _start(self, command: Start) -> None:
        vocabulary = self._vocabularies.get(command.fingerprint)
        if vocabulary is None:
            self._say(Ended(command.job, "vocabulary unknown"))
            return
        self._vocabularies.move_to_end(command.fingerprint)
        reader, writer = os.pipe()
        forker = os.getpid()
        pid = os.fork()
        if not pid:
            run_job(command, vocabulary, self._settings, writer, forker)
        os.close(writer)
        frames = Frames(self._settings.compilation.max_artifact_bytes + MOST_AROUND_ARTIFACT_BYTES)
        job = Job(command.job, pid, reader, command.timeout_s, time.monotonic() + command.timeout_s, frames)
        self._jobs[job.number] = job
        self._selector.register(reader, selectors.EVENT_READ, job)

    def _hear(self, job: Job) -> None:
        """Pass on what a job reports of itself. One that closes its pipe has ended.

        Compilers read what clients wrote: a job may say anything, in the name of others, too, and without end.
        """
        if job.number not in self._jobs:
            return  # killed since this was noticed
        data = os.read(job.reader, CHUNK_BYTES)
        try:
            for message in job.frames.feed(data):
                job.num_reports += 1
                if msgspec.msgpack.decode(message, type=Reported).job != job.number or job.num_reports > MOST_REPORTS:
                    raise ValueError("no report of this job's")
                send(self._events, frame(message))
        except (ValueError, msgspec.MsgspecError):
            self._kill(job, "crashed")
            return
        if not data:
            self._bury(job, None)

    def _kill(self, job: Job, end: End) -> None:
        os.kill(job.pid, signal.SIGKILL)
        self._bury(job, end)

    def _bury(self, job: Job, end: End | None) -> None:
        """Wait for a job's end, which is near; without `end`, its status says how it ended."""
        del self._jobs[job.number]
        self._selector.unregister(job.reader)
        os.close(job.reader)
        _, status, usage = os.wait4(job.pid, 0)
        if end == "late" and usage.ru_utime + usage.ru_stime < job.timeout_s * STARVED_SHARE:
            end = "starved"
        self._say(Ended(job.number, end or ("crashed" if status else "done")))

    def _say(self, event: Event) -> None:
        send(self._events, encode(event))


def main() -> None:
    """Serve the process that started this one, over its standard input and output."""
    try:
        if "xgrammar" not in sys.modules:
            import_xgrammar_alone()
    except Exception:
        logger.exception("xgrammar cannot be imported alone any more: importing all it asks for, which takes memory")
        os.execv(sys.executable, [sys.executable, "-c", WITH_EVERYTHING, *sys.argv[1:]])
    settings = GuidedSettings.model_validate_json(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the others; this process ends with its actor
    events = os.dup(1)
    os.dup2(2, 1)  # what others print must not come between messages
    try:
        Forker(settings, 0, events).run()
    except BrokenPipeError:
        return  # the actor has ended. Jobs end with this process.


if __name__ == "__main__":
    main()
