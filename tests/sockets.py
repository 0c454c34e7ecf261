"""What a running cluster listens on, read from its processes."""

import contextlib
import ipaddress
from dataclasses import dataclass

import psutil

from deployments.launch import LocalCluster


@dataclass(frozen=True)
class Listener:
    """A TCP socket on which a process takes connections."""

    process: str
    host: str
    port: int

    @property
    def is_on_loopback(self) -> bool:
        address = ipaddress.ip_address(self.host)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # how a gRPC server of C++ listens on 127.0.0.1
        return address.is_loopback


def listeners(cluster: LocalCluster) -> list[Listener]:
    """Return the listening sockets of all of a cluster's processes.

    Raises psutil.AccessDenied for a process that cannot be looked into: nothing is passed over but what has ended.
    """
    found = []
    for process in cluster.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
            name = process.name()
            connections = process.net_connections("tcp")
            found += [Listener(name, c.laddr.ip, c.laddr.port) for c in connections if c.status == psutil.CONN_LISTEN]
    return found


def assert_on_loopback(cluster: LocalCluster, *owners: str) -> None:
    """Fail unless every socket is on loopback, and processes whose names begin so are among those that listen."""
    found = listeners(cluster)
    assert [listener for listener in found if not listener.is_on_loopback] == []
    assert [owner for owner in owners if not any(listener.process.startswith(owner) for listener in found)] == []
