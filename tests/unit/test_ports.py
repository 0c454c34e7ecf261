import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.ports import UNCLAIMED_PORTS, free_port, is_free

CHOSEN_BY_LINUX = Path("/proc/sys/net/ipv4/ip_local_port_range")


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_free_ports_are_free() -> None:
    port = free_port()
    assert is_free(port)
    assert free_port(port) == port


def test_another_port_is_found_when_the_preferred_one_is_taken(listener: int) -> None:
    assert not is_free(listener)
    assert free_port(listener) != listener


def test_nobody_is_given_such_a_port_unasked() -> None:
    lowest, highest = map(int, CHOSEN_BY_LINUX.read_text().split())
    assert not set(UNCLAIMED_PORTS) & set(range(lowest, highest + 1))
