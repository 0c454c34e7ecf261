import socket
from collections.abc import Iterator

import pytest

from deployments.ports import free_port, is_free


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_free_ports_are_free() -> None:
    port = free_port()
    assert is_free(port)
    assert free_port(port) == port


def test_no_port_is_given_twice() -> None:
    given = [free_port() for _ in range(200)]
    assert len(set(given)) == len(given)


def test_another_port_is_found_when_the_preferred_one_is_taken(listener: int) -> None:
    assert not is_free(listener)
    assert free_port(listener) != listener
