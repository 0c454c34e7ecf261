"""Who can reach what `vllm-graph up` starts: this machine only, and Ray itself only with the token."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from config.models import PROJECT_ROOT
from deployments.loopback import NODE_ON_LOOPBACK
from tests.harness import Server
from tests.sockets import Listener, assert_on_loopback, listeners

LOOK = """
import sys, ray
from deployments.exposure import dashboard_address, is_http_on_loopback
ray.init(address=sys.argv[1], log_to_driver=False)
print(dashboard_address(), is_http_on_loopback())
"""


def look(server: Server, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Connect to Ray as another program would, and look at its exposure."""
    few_retries = {"RAY_NUM_REDIS_GET_RETRIES": "2"}
    return subprocess.run(
        [sys.executable, "-c", LOOK, server.cluster.address],
        env={**environment, **few_retries},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
    )


def test_every_socket_is_on_loopback(server: Server) -> None:
    server.http.get("/v1/models")
    assert_on_loopback(server.cluster, "gcs_server", "raylet", "haproxy", "ray::ServeReplica", "ray::ProxyActor")


def test_the_ports_that_are_known_are_among_those_that_were_read(server: Server) -> None:
    flags = server.config["controller_options"]["runtime_env"]["env_vars"]
    known = {int(flags[f"RAY_SERVE_HAPROXY_{name}_PORT"]) for name in ("STATS", "METRICS")}
    known |= {int(url.rsplit(":", 1)[1]) for url in (server.cluster.address, server.cluster.dashboard, server.base_url)}
    assert known <= {listener.port for listener in listeners(server.cluster)}


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("0.0.0.0", False), ("::", False)],
)
def test_loopback_is_told_from_other_addresses(host: str, expected: bool) -> None:
    assert Listener("a", host, 1).is_on_loopback is expected


def test_the_dashboard_wants_the_token(server: Server) -> None:
    path = "/api/serve/applications/"
    assert httpx.get(server.cluster.dashboard + path).status_code == 401
    assert httpx.get(server.cluster.dashboard + path, headers={"Authorization": "Bearer no"}).status_code == 403
    assert server.cluster.read(path)["applications"]


@pytest.mark.parametrize("token", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "no"}])
def test_ray_wants_the_token(server: Server, token: dict[str, str], tmp_path: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    refused = look(server, {**inherited, "HOME": str(tmp_path), **NODE_ON_LOOPBACK, **token})
    assert refused.returncode != 0
    assert "token authentication is enabled" in refused.stderr


def test_with_the_token_the_cluster_says_how_exposed_it_is(server: Server) -> None:
    allowed = look(server, {**os.environ, **server.cluster.environment})
    assert allowed.stdout == f"{server.cluster.dashboard.removeprefix('http://')} True\n", allowed.stderr


def test_other_programs_get_in_with_what_is_printed(server: Server, tmp_path: Path) -> None:
    environment = {**os.environ, **server.cluster.environment, "RAY_DASHBOARD_ADDRESS": server.cluster.dashboard}
    status = subprocess.run(
        [Path(sys.executable).parent / "serve", "status"], env=environment, capture_output=True, text=True
    )
    assert "status: RUNNING" in status.stdout, status.stderr


@pytest.mark.parametrize(
    "header",
    [
        (b"x-request-id", b"\xff"),
        (b"x-session-id", b"\xff"),
        (b"serve_multiplexed_model_id", b"\xff"),
        (b"x-request-timeout-seconds", b"\xff"),
        (b"x-request-disconnect-disabled", b"\xff"),
        (b"traceparent", b"\xff"),
    ],
)
def test_headers_that_serve_cannot_read_do_not_break_a_request(server: Server, header: tuple[bytes, bytes]) -> None:
    answer = server.http.get("/v1/models", headers=[header])
    assert answer.status_code == 200
    assert answer.headers["x-request-id"]


def test_clients_do_not_set_serves_time_limit(server: Server) -> None:
    body = {"model": "slow", "messages": [{"role": "user", "content": "a"}], "max_tokens": 20}
    answer = server.http.post("/v1/chat/completions", json=body, headers={"x-request-timeout-seconds": "0.05"})
    assert answer.status_code == 200
