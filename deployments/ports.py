"""Ports of this machine that stay free until they are used."""

import random
import socket
from collections.abc import Iterator

UNCLAIMED_PORTS = range(20_000, 30_000)
"""Below those that Linux gives to connections and to whoever listens on port 0 (from 32,768 on), above those of Ray's
workers (10,002 to 19,999), beside those of Serve's replicas (30,000 to 31,000 and 40,000 to 41,000)."""


def _shuffled() -> Iterator[int]:
    yield from random.SystemRandom().sample(UNCLAIMED_PORTS, len(UNCLAIMED_PORTS))


_unclaimed = _shuffled()


def free_port(preferred: int | None = None) -> int:
    """Return `preferred` when it is free, else one of UNCLAIMED_PORTS, each once; raises OSError when none is left.

    A port that the system chooses may be gone before it is used: Ray's processes take hundreds of them as they start.
    """
    if preferred is not None and is_free(preferred):
        return preferred
    for port in _unclaimed:
        if is_free(port):
            return port
    raise OSError(f"no port from {UNCLAIMED_PORTS[0]} to {UNCLAIMED_PORTS[-1]} is free")


def is_free(port: int) -> bool:
    """Say whether a port can be listened on at the loopback address."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
