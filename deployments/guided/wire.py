"""Messages between an actor, the process that forks for it, and what that forks.

    actor --Teach, Start, Kill--> forker --(fork)--> job
    actor <--Taught, Reported, Ended-- forker <--Reported-- job

They are written in msgpack, each after its length: what comes from a job is never run.
"""

import os
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec

from deployments.guided_types import Compiler, GrammarSpec, Vocabulary

LENGTH_BYTES = 8
MAX_FRAME_BYTES = 2**32
CHUNK_BYTES = 2**20

Stage = Literal["planning", "compiling", "trying out", "packing"]
End = Literal["done", "crashed", "late", "starved", "killed", "vocabulary unknown"]


class Teach(msgspec.Struct, tag=True, frozen=True):
    """Have a vocabulary ready."""

    vocabulary: Vocabulary


class Start(msgspec.Struct, tag=True, frozen=True):
    """Fork, and try one compiler."""

    job: int
    """A number that no other job of this actor had."""
    compiler: Compiler
    spec: GrammarSpec
    fingerprint: str
    timeout_s: float
    grammar: str = ""
    """What llguidance is given: the job that tried xgrammar has found out."""


class Kill(msgspec.Struct, tag=True, frozen=True):
    """End a job; nothing more is heard of it but its end."""

    job: int


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The process that forks has imported what it needs. It is the first event."""


class Taught(msgspec.Struct, tag=True, frozen=True):
    """A vocabulary is ready, or cannot be read: then `error` says why."""

    fingerprint: str
    error: str = ""


class Planned(msgspec.Struct, tag=True, frozen=True):
    """What there is to compile."""

    has_xgrammar: bool
    llguidance: str | None
    enforced: tuple[str, ...]
    ignored: tuple[str, ...]


class Entered(msgspec.Struct, tag=True, frozen=True):
    """What a job does from now on."""

    stage: Stage


class Made(msgspec.Struct, tag=True, frozen=True):
    """An artifact that is within all limits."""

    artifact: bytes
    memory_bytes: Annotated[int, msgspec.Meta(ge=0)]


class Unfit(msgspec.Struct, tag=True, frozen=True):
    """This compiler cannot be used for the constraint; another one may be."""

    reason: str
    is_costly: bool = False


class Invalid(msgspec.Struct, tag=True, frozen=True):
    """No compiler can be used."""

    message: str


Report = Planned | Entered | Made | Unfit | Invalid


class Reported(msgspec.Struct, tag=True, frozen=True):
    """A job says something. Made, Unfit and Invalid are the last of it."""

    job: int
    report: Report


class Ended(msgspec.Struct, tag=True, frozen=True):
    """A job's process is no more."""

    job: int
    end: End


Command = Teach | Start | Kill
Event = Ready | Taught | Reported | Ended


class Frames:
    """Puts together what arrives in pieces."""

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_bytes = max_bytes
        self._received = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the messages that are complete now; raises ValueError for a length that no message has."""
        self._received += data
        while len(self._received) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._received[:LENGTH_BYTES], "little")
            if end > self._max_bytes:
                raise ValueError(f"a message of {end} bytes")
            if len(self._received) < end:
                return
            message = bytes(memoryview(self._received)[LENGTH_BYTES:end])
            del self._received[:end]
            yield message


def frame(message: bytes) -> bytes:
    return len(message).to_bytes(LENGTH_BYTES, "little") + message


def encode(message: Command | Event) -> bytes:
    """Return what `Frames` puts together again; `decode` with the type reads it."""
    return frame(msgspec.msgpack.encode(message))


def send(fd: int, data: bytes) -> None:
    """Write all of it; waits while the other end does not read."""
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left[:CHUNK_BYTES]) :]
