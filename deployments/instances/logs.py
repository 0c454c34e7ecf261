"""An instance's own log, and what the replicas on this machine have written."""

import datetime
import logging
from collections.abc import Sequence
from pathlib import Path

from deployments.serve_details import Replica

RAYS_OWN = (":job_id:", ":actor_name:", ":task_name:")
"""What Ray writes into the files of its workers for itself."""

logger = logging.getLogger("ray.serve")


class LogFiles:
    """The log of each instance, kept across its starts: `<folder>/<name>.log`, and `.log.1` with what came before.

    max_bytes: most that both hold; what is older is forgotten. A disk that is full costs entries and nothing else.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_part_bytes = max_bytes // 2

    def note(self, name: str, text: str) -> None:
        """Add what has happened now; its first line gets the time. Of a text that is too long the end is kept."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = f"{now} {text.rstrip()}\n".encode(errors="replace")[-self._max_part_bytes :]
        path, older = self._paths(name)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if path.exists() and path.stat().st_size + len(entry) > self._max_part_bytes:
                path.replace(older)
            with path.open("ab") as file:
                file.write(entry)
        except OSError as error:
            logger.warning("cannot write to %s: %s", path, error)

    def read(self, name: str) -> str:
        """Return all that is kept, oldest first."""
        path, older = self._paths(name)
        return tail(older, self._max_part_bytes) + tail(path, self._max_part_bytes)

    def forget(self, name: str) -> None:
        """Delete an instance's log."""
        for path in self._paths(name):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                logger.warning("cannot delete %s: %s", path, error)

    def _paths(self, name: str) -> tuple[Path, Path]:
        return self._folder / f"{name}.log", self._folder / f"{name}.log.1"


def tail(path: Path, max_bytes: int) -> str:
    """Return the last whole lines of a file, at most so many bytes; "" when there is no such file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            read = file.read(max_bytes)
    except OSError:
        return ""
    if size > max_bytes:
        read = read.partition(b"\n")[2]
    return read.decode(errors="replace")


def last_lines(text: str, max_bytes: int) -> str:
    """Return the last whole lines of a text, at most so many bytes."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= max_bytes:
        return text
    return encoded[-max_bytes:].partition(b"\n")[2].decode(errors="replace")


def read_replicas(folder: Path, replicas: Sequence[Replica], max_bytes: int) -> str:
    """Return the ends of what replicas have written; folder: Ray's logs on the machine that they ran on.

    What a replica and its child processes print, vLLM's own words among it, is in the files of its Ray worker. Serve's
    log of the replica says who called it; most of it is printed, too.
    """
    share = max_bytes // max(1, len(replicas))
    return "".join(_read(folder, replica, share) for replica in replicas)


def _read(folder: Path, replica: Replica, max_bytes: int) -> str:
    head = f"--- replica {replica.id} on node {replica.node_id}"
    texts = [tail(path, max_bytes // 2) for path in _files(folder, replica)]
    lines = [line for text in texts for line in text.splitlines() if not line.startswith(RAYS_OWN)]
    return last_lines("\n".join([head, *lines, ""]), max_bytes)


def _files(folder: Path, replica: Replica) -> list[Path]:
    printed = sorted(folder.glob(f"worker-{replica.worker_id}-*.*")) if replica.worker_id else []
    return printed or [folder / replica.log_path.lstrip("/")]
