"""vLLM's own sockets; what Ray and HAProxy listen on is in `tests/cluster/test_exposure.py`."""

from tests.harness import Server
from tests.sockets import assert_on_loopback


def test_every_socket_is_on_loopback(server: Server) -> None:
    assert_on_loopback(server.cluster, "gcs_server", "raylet", "haproxy", "ray::ServeReplica", "VLLM::EngineCore")
