"""Locust as a program, against a running graph of fake engines and against a server that misbehaves."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from config.models import PROJECT_ROOT
from deployments.ports import free_port
from loadtests.short import LOCUST_PYTHON
from tests.faults import MESSAGES
from tests.harness import PLANES, Config, Server, eventually

# To a client both planes are one API.
planes = PLANES[:1]
TIMEOUT_S = 60
BROKEN = b'data: {"choices":[{"index":0,"delta":{"content":"so"}}]}\n\n'
ERROR = b'data: {"error":{"message":"m","type":"server_error","code":"engine_died"}}\n\ndata: [DONE]\n\n'


@pytest.fixture(scope="module", autouse=True)
def locust_environment() -> None:
    """Locust has an environment of its own, installed at the first use; nothing happens when it is there."""
    command = [sys.executable, str(PROJECT_ROOT / "requirements" / "prepare.py"), "--loadtest"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


class Load:
    """Locust, started with a summary and a report to write."""

    def __init__(self, folder: Path, url: str, *options: str) -> None:
        self._summary, self._report = folder / "summary.json", folder / "report.html"
        command = [str(LOCUST_PYTHON), "-m", "locust", "-f", str(PROJECT_ROOT / "loadtests" / "locustfile.py")]
        command += ["--headless", "--only-summary", "--host", url, "--summary", str(self._summary)]
        command += ["--report", str(self._report), "--users", "4", *options]
        if "--processes" in options:
            port = str(free_port())
            command += ["--master-bind-port", port, "--master-port", port]
        self.process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def end(self) -> tuple[int, str]:
        """Wait until it ends; return its exit status and what it has printed."""
        try:
            output, _ = self.process.communicate(timeout=TIMEOUT_S)
        finally:
            self.process.kill()
        return self.process.returncode, output

    def found(self) -> Config:
        found: Config = json.loads(self._summary.read_text())
        return found

    def page(self) -> str:
        return self._report.read_text()


def assert_adds_up(found: Config) -> None:
    """Check that every request that was due has become one thing, in each scenario and over time."""
    for part in (found, *found["scenarios"].values()):
        assert part["due"] == part["answered"] + part["failed"] + part["not_sent"] + part["unfinished"]
        assert part["offered_per_s"] == pytest.approx(part["due"] / found["elapsed_s"])
        assert part["achieved_per_s"] * found["elapsed_s"] <= part["answered"] + 0.01
        assert sum(part["errors"].values()) == part["failed"]
    assert found["due"] == sum(part["due"] for part in found["scenarios"].values())
    length_s = found["over_time"][1]["at_s"]
    assert sum(moment["offered_per_s"] for moment in found["over_time"]) * length_s == pytest.approx(found["due"])


def test_a_closed_load_of_several_scenarios(server: Server, tmp_path: Path) -> None:
    mix = "chat:3,plain-chat:1,completions:1,conversation:2,highlights:1,continuations:1"
    load = Load(tmp_path, server.base_url, "--run-time", "5s", "--model", "slow", "--max-tokens", "8", "--mix", mix)
    status, output = load.end()
    assert status == 0, output
    found = load.found()
    assert_adds_up(found)
    assert set(found["scenarios"]) == {part.split(":")[0] for part in mix.split(",")}
    assert found["unfinished"] == 0
    chat = found["scenarios"]["chat"]
    assert chat["itl_ms"]["p50"] > 0
    assert chat["e2e_ms"]["p99"] > chat["ttft_ms"]["p50"] + 6 * chat["itl_ms"]["p50"]
    assert found["scenarios"]["plain-chat"]["ttft_ms"]["p50"] is None
    assert all(f"{kind:9}chat" in output for kind in ("e2e", "ttft", "itl"))
    assert load.page().count("<svg") == 8


def test_an_open_load_of_two_processes_is_one_summary(server: Server, tmp_path: Path) -> None:
    options = ("--processes", "2", "--arrival", "constant", "--rate", "20", "--run-time", "4s", "--max-tokens", "4")
    load = Load(tmp_path, server.base_url, "--model", "fast", *options)
    status, output = load.end()
    assert status == 0, output
    found = load.found()
    assert_adds_up(found)
    assert found["run"]["processes"] == 2
    assert found["offered_per_s"] == pytest.approx(20, rel=0.2)
    assert found["answered"] == found["due"]


def test_a_slow_server_is_not_asked_less(server: Server, tmp_path: Path) -> None:
    """One request at a time and a second for each: closed users would never ask ten times a second."""
    options = ("--arrival", "poisson", "--rate", "10", "--run-time", "4s", "--max-tokens", "1", "--max-under-way", "6")
    load = Load(tmp_path, server.base_url, "--model", "pensive", "--ttft-limit", "0.1", *options)
    status, output = load.end()
    assert status == 1, output
    found = load.found()
    assert_adds_up(found)
    assert found["not_sent"] == 0 or "6 requests are under way" in output
    assert found["achieved_per_s"] < found["offered_per_s"]
    assert "FAILED: goodput 0.00%, wanted are 95.00%" in output


def test_overload_is_an_error_of_its_kind_and_users_come_back_when_told(server: Server, tmp_path: Path) -> None:
    load = Load(tmp_path, server.base_url, "--run-time", "4s", "--model", "narrow", "--max-tokens", "1")
    status, output = load.end()
    assert status == 1, output
    found = load.found()
    assert_adds_up(found)
    assert set(found["errors"]) == {"HTTP 429 overloaded_error"}
    assert found["answered"] > 0
    assert found["failed"] < 4 * 5


def test_an_engine_that_dies_fails_the_run_with_the_kind_of_error(server: Server, tmp_path: Path) -> None:
    (old,) = server.running("model-slow")
    load = Load(tmp_path, server.base_url, "--run-time", "5s", "--model", "slow", "--max-tokens", "400")
    eventually(lambda: server.stats("model-slow").num_running >= 4, "the load has arrived")
    os.kill(old["pid"], signal.SIGKILL)
    status, output = load.end()
    assert status == 1, output
    found = load.found()
    assert any(error.startswith("event: ") for error in found["errors"]), found["errors"]
    assert "FAILED: " in output
    body = {"model": "slow", "messages": MESSAGES, "max_tokens": 1}
    eventually(lambda: server.http.post("/v1/chat/completions", json=body).status_code == 200, "the model is back")


class Misbehaving(BaseHTTPRequestHandler):
    """Streams that break off, each model in its way."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        assert isinstance(self.server, MisbehavingServer)
        self.server.asked.set()
        model = json.loads(self.rfile.read(int(self.headers["content-length"])))["model"]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self._send(BROKEN)
        if model == "mute":
            self.server.released.wait(TIMEOUT_S)
        if model == "error":
            self._send(ERROR)
            self._send(b"")
        self.close_connection = model in ("cut", "mute")

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, *_: Any) -> None:
        """Be silent."""


class MisbehavingServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Misbehaving)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.asked, self.released = threading.Event(), threading.Event()

    def handle_error(self, *_: Any) -> None:
        """Be silent: clients that have given up are what it is for."""


@pytest.fixture
def misbehaving() -> Iterator[MisbehavingServer]:
    server = MisbehavingServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("error", "event: engine_died"),
        ("cut", "stream: cut short"),
        ("mute", "timeout: unfinished"),
    ],
)
def test_a_broken_stream_is_an_error_of_its_kind(
    misbehaving: MisbehavingServer, tmp_path: Path, model: str, error: str
) -> None:
    load = Load(tmp_path, misbehaving.url, "--run-time", "1s", "--model", model, "--request-timeout", "1")
    status, output = load.end()
    assert status == 1, output
    found = load.found()
    assert set(found["errors"]) == {error}
    assert f"chat: {error}" in output
    assert f"FAILED: no request was answered, of {found['due']}" in output


def test_ctrl_c_ends_it_at_once_and_the_summary_is_there(misbehaving: MisbehavingServer, tmp_path: Path) -> None:
    drain = ("--stop-timeout", str(10 * TIMEOUT_S))  # it would be killed first
    load = Load(tmp_path, misbehaving.url, "--model", "mute", *drain)
    assert misbehaving.asked.wait(TIMEOUT_S)
    load.process.send_signal(signal.SIGINT)
    status, output = load.end()
    assert status == 1, output
    assert load.found()["is_cut"]
    assert load.found()["unfinished"] > 0


def test_what_cannot_work_is_said_before_anything_starts(tmp_path: Path) -> None:
    status, output = Load(tmp_path, "http://127.0.0.1:9", "--processes", "2").end()
    assert status == 1
    assert "loadtest: http://127.0.0.1:9 does not list its models: connection: ConnectionRefusedError" in output
