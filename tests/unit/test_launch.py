import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from config.models import PROJECT_ROOT
from deployments.auth_token import MODE, TOKEN, TOKEN_PATH
from deployments.launch import (
    LaunchError,
    LocalCluster,
    callable_models,
    deploy,
    draining_period_s,
    http_address,
    read_json,
    require_free,
    say_ready,
)
from deployments.loopback import NODE_ON_LOOPBACK
from deployments.ports import free_port


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of this machine that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "serve_config.yaml"


class Gateway(HTTPServer):
    """Knows the models of its cards, and keeps what it was sent to authenticate with."""

    cards: list[dict[str, str]]
    deployed: dict[str, Any] | None = None
    authorization: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def health(self, names: list[str]) -> int:
        """Answer as `GET /health?model=...` does: 404 for a model that is not there, 503 for one that is not ready."""
        states = {card["id"]: card["status"] for card in self.cards}
        if not states.keys() >= set(names):
            return 404
        return 200 if {states[name] for name in names} <= {"running", "idle"} else 503


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Gateway)
        self.server.authorization = self.headers["authorization"]
        url = urlsplit(self.path)
        if url.path == "/health":
            status = self.server.health(parse_qs(url.query)["model"])
        else:
            status = 200 if url.path in ("/v1/models", "/text") else 404
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps({"data": self.server.cards}).encode() if self.path == "/v1/models" else b"no JSON")

    def do_PUT(self) -> None:
        assert isinstance(self.server, Gateway)
        config = json.loads(self.rfile.read(int(self.headers["content-length"])))
        is_good = self.path == "/api/serve/applications/" and "applications" in config
        self.server.deployed = config if is_good else None
        self.send_response(200 if is_good else 400)
        self.end_headers()
        self.wfile.write(b"" if is_good else b"no applications")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http_options: {host: 127.0.0.2, port: 9}", ("127.0.0.2", 9)),
        ("http_options: {host: 0.0.0.0}", ("127.0.0.1", 8000)),
        ("http_options: {port: 9}", ("127.0.0.1", 9)),
        ("http_options:", ("127.0.0.1", 8000)),
        ("applications: []", ("127.0.0.1", 8000)),
    ],
)
def test_http_address(config: Path, text: str, address: tuple[str, int]) -> None:
    config.write_text(text)
    assert http_address(config) == address


@pytest.mark.parametrize("text", ["", "- a", "a: [", "words"])
def test_a_file_that_is_no_config_is_named(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(LaunchError, match=str(config)):
        http_address(config)


def test_a_file_that_is_not_there_is_named(config: Path) -> None:
    with pytest.raises(LaunchError, match=str(config)):
        http_address(config)


def test_a_port_in_use_is_named_before_ray_is_started(listener: int, config: Path) -> None:
    with pytest.raises(LaunchError, match=f"port {listener} is in use"):
        require_free("127.0.0.1", listener)
    config.write_text(f"http_options: {{port: {listener}}}")
    with pytest.raises(LaunchError, match=f"port {listener} is in use"):
        LocalCluster(config)


def test_a_cluster_chooses_ports_that_are_free(config: Path) -> None:
    config.write_text(f"http_options: {{port: {free_port()}}}")
    cluster = LocalCluster(config)
    host, port = cluster.dashboard.removeprefix("http://").split(":")
    require_free(host, int(port))
    assert cluster.address.rsplit(":", 1)[1] != port


@pytest.fixture
def cluster(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalCluster:
    """A cluster of a user without a token, not started."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (MODE, TOKEN, TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    config.write_text(f"http_options: {{port: {free_port()}}}")
    return LocalCluster(config)


def test_what_uses_a_cluster_is_told_of_its_token_and_address(cluster: LocalCluster) -> None:
    assert cluster.environment == {**NODE_ON_LOOPBACK, MODE: "token"}


def test_how_to_use_the_dashboard_is_said(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    cluster.say_access()
    shown = capsys.readouterr().out
    assert cluster.dashboard in shown
    exports = {**cluster.environment, "RAY_DASHBOARD_ADDRESS": cluster.dashboard}
    assert f"export {' '.join(f'{name}={value}' for name, value in exports.items())}" in shown


def test_a_dashboard_without_a_token_is_not_silent(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MODE, "disabled")
    config.write_text(f"http_options: {{port: {free_port()}}}")
    LocalCluster(config).say_access()
    assert "every user of this machine can run code" in capsys.readouterr().out


def test_a_token_file_that_cannot_be_read_is_named_before_ray_is_started(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_PATH, "/nothing")
    config.write_text(f"http_options: {{port: {free_port()}}}")
    with pytest.raises(LaunchError, match=TOKEN_PATH):
        LocalCluster(config)


def test_read_json(gateway: Gateway) -> None:
    gateway.cards = []
    assert read_json(f"{gateway.url}/v1/models") == {"data": []}
    assert read_json(f"{gateway.url}/text") is None
    assert read_json(f"{gateway.url}/nothing") is None
    assert read_json(f"http://127.0.0.1:{free_port()}/") is None
    assert gateway.authorization is None
    read_json(f"{gateway.url}/v1/models", {"Authorization": "Bearer a"})
    assert gateway.authorization == "Bearer a"


def test_a_config_is_deployed(gateway: Gateway, cluster: LocalCluster, config: Path) -> None:
    cluster.dashboard = gateway.url
    config.write_text("applications: [{name: a}]")
    deploy(cluster, config)
    assert gateway.deployed == {"applications": [{"name": "a"}]}


def test_why_a_config_is_refused_is_said(gateway: Gateway, cluster: LocalCluster, config: Path) -> None:
    cluster.dashboard = gateway.url
    with pytest.raises(LaunchError, match="no applications"):
        deploy(cluster, config)
    cluster.dashboard = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LaunchError, match="could not be deployed"):
        deploy(cluster, config)


@pytest.mark.parametrize(
    ("text", "period_s"),
    [
        ("controller_options: {runtime_env: {env_vars: {RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S: '5'}}}", 5),
        ("controller_options: {runtime_env: {env_vars: {RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S: soon}}}", 30),
        ("controller_options: {runtime_env: {env_vars: {}}}", 30),
        ("controller_options:", 30),
        ("applications: []", 30),
    ],
)
def test_draining_period(config: Path, text: str, period_s: float) -> None:
    config.write_text(text)
    assert draining_period_s(config) == period_s


RUNNING = {"gateway": "RUNNING", "model-a": "RUNNING", "model-b": "RUNNING"}


@pytest.mark.parametrize(
    ("states", "seen", "names"),
    [
        (RUNNING, {"a": "running", "b": "idle"}, ["a", "b"]),
        (RUNNING, {"a": "running"}, None),
        (RUNNING, {"a": "running", "b": "starting"}, None),
        (RUNNING, {"a": "running", "b": "running", "old": "stopping"}, ["a", "b"]),
        (RUNNING, {}, None),
        ({**RUNNING, "model-b": "DEPLOYING"}, {"a": "running", "b": "running"}, None),
        ({**RUNNING, "gateway": "DEPLOYING"}, {"a": "running", "b": "running"}, None),
        ({}, {}, None),
        ({"gateway": "RUNNING"}, {}, []),
    ],
)
def test_models_are_callable_once_the_gateway_sees_all(
    gateway: Gateway, states: dict[str, str], seen: dict[str, str], names: list[str]
) -> None:
    gateway.cards = [{"id": name, "status": status} for name, status in seen.items()]
    assert callable_models(gateway.url, states) == names


def test_no_model_is_callable_while_nothing_listens() -> None:
    assert callable_models(f"http://127.0.0.1:{free_port()}", RUNNING) is None


def test_the_first_request_that_is_shown_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    say_ready("http://127.0.0.1:8000", ["a", "b"], 3)
    shown = capsys.readouterr().out
    assert "a, b" in shown
    body = json.loads(shown.split("-d '")[1].split("'")[0])
    assert body["model"] == "a"
    assert body["messages"]


def test_a_config_that_cannot_be_read_ends_the_command_with_one_line(config: Path) -> None:
    command = [sys.executable, "-m", "deployments.cli", "up", str(config)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT_ROOT, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("vllm-graph: cannot use")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "text", [b"http_options: text", b"http_options: {port: abc}", b"\xff\xfe", b"http_options: {port: }"]
)
def test_a_file_that_is_no_config_is_refused(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(text)
    with pytest.raises(LaunchError, match="cannot read"):
        http_address(tmp_path / "config.yaml")
