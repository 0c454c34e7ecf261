"""Where the real HAProxy sends the requests of models on the direct data plane, and what becomes of those that fail."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from ray.serve._private.haproxy import BackendConfig, ServerConfig

from deployments.haproxy import close_config
from deployments.haproxy_models import BODY_TIMEOUT, RETRIED_HEADER, RETRY_STATUS, direct_models, with_models
from deployments.openai_paths import FORWARDED
from deployments.ports import free_port
from tests.haproxy import running, write_config
from tests.harness import eventually

CHAT = "/v1/chat/completions"
BUFSIZE = 16384
DEADLINE_S = 60
PORTS = {name: free_port() for name in ("http", "stats", "metrics")}


class Replica(ThreadingHTTPServer):
    """Says which application it is of and what path it got; `faults` are what it does to the next requests."""

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name = name
        self.faults: list[str] = []
        self.num_requests = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Replica

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.num_requests += 1
        fault = self.server.faults.pop(0) if self.server.faults else ""
        if fault == "dies":
            self.close_connection = True
            return
        status = int(fault or 200)
        got = {"app": self.server.name, "path": self.path, "id": self.headers["x-request-id"]}
        got["retried"] = self.headers[RETRIED_HEADER]
        body = json.dumps(got).encode() if status in (200, RETRY_STATUS) else b"Request dropped due to backpressure"
        self.send_response(status)
        self.send_header("content-type", "application/json" if body.startswith(b"{") else "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture(scope="module")
def replicas() -> Iterator[dict[str, Replica]]:
    servers = {name: Replica(name) for name in ("gateway", "demo", "big.one", "spare")}
    threads = [threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.01}) for each in servers.values()]
    for thread in threads:
        thread.start()
    yield servers
    for server in servers.values():
        server.shutdown()
        server.server_close()
    for thread in threads:
        thread.join()


def serve_config(folder: Path, replicas: dict[str, Replica]) -> str:
    """Return what Serve writes for a gateway, two models on the direct data plane, one that has no replica, and one
    whose only replica has gone, which Serve has not noticed."""
    ports = {name: replica.server_port for name, replica in replicas.items()} | {"gone": free_port()}
    served = {"demo": ["demo", "spare"], "big.one": ["big.one"], "asleep": [], "gone": ["gone"]}
    found = {f"http-model-{model}": (f"/models/{model}", names) for model, names in served.items()}
    found["http-gateway"] = ("/", ["gateway"])
    backends = {}
    for name, (prefix, names) in found.items():
        servers = [ServerConfig(each, "127.0.0.1", ports[each]) for each in names]
        backends[name] = BackendConfig(name=name, app_name=name, path_prefix=prefix, servers=servers)
        backends[name].fallback_server = ServerConfig("fallback", "127.0.0.1", ports["gateway"])
    return write_config(folder, PORTS, backends, bufsize=BUFSIZE).read_text()


@pytest.fixture(scope="module")
def text(replicas: dict[str, Replica], tmp_path_factory: pytest.TempPathFactory) -> str:
    return serve_config(tmp_path_factory.mktemp("haproxy"), replicas)


@pytest.fixture(scope="module", autouse=True)
def haproxy(text: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    path = tmp_path_factory.mktemp("running") / "haproxy.cfg"
    path.write_text(text)
    with running(path, PORTS["http"], **{BODY_TIMEOUT: "0.5"}):
        yield


def ask(
    body: bytes, path: str = CHAT, method: str = "POST", headers: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection("127.0.0.1", PORTS["http"], timeout=20)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(answer.read())
    finally:
        connection.close()


def who(body: bytes, path: str = CHAT, method: str = "POST") -> tuple[str, str]:
    """Return which application answers, and the path that it sees."""
    status, _, got = ask(body, path, method)
    assert status == 200
    return got["app"].replace("spare", "demo"), got["path"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "demo", "messages": []}',
        b'  {"messages": [{"model": "big.one", "role": "user"}], "model"  :  "demo"}',
        b'{"model": "demo/adapter"}',
        b'{"model": "d\\u0065mo"}',
        b'{"model": "demo", "prompt": "' + b"a" * 3 * BUFSIZE + b'"}',
    ],
)
def test_a_model_takes_its_own_requests(body: bytes) -> None:
    assert who(body) == ("demo", f"/models/demo{CHAT}")


def test_a_replica_is_told_that_it_may_have_others_asked() -> None:
    _, _, got = ask(b'{"model": "demo"}', headers={RETRIED_HEADER: "never"})
    assert got["retried"] == str(RETRY_STATUS)
    assert ask(b'{"model": "nobody"}')[2]["retried"] is None


@pytest.mark.parametrize("path", FORWARDED)
def test_on_every_route_of_models(path: str) -> None:
    assert who(b'{"model": "big.one"}', path) == ("big.one", f"/models/big.one{path}")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not JSON",
        b"[]",
        b'["model", "demo"]',
        b'{"model": "other"}',
        b'{"model": "asleep"}',
        b'{"model": "demo2"}',
        b'{"model": "big-one"}',
        b'{"model": "DEMO"}',
        b'{"model": "../demo"}',
        b'{"model": " demo"}',
        b'{"model": null}',
        b'{"model": {"model": "demo"}}',
        b'{"model": ["demo"]}',
        b'{"messages": {"model": "demo"}}',
        b'{"text": "\\"model\\": \\"demo\\""}',
        b'{"prompt": "' + b"a" * 3 * BUFSIZE + b'", "model": "demo"}',
        b"\xff\xfe\x00",
        b"[" * 5000,
    ],
)
def test_whatever_is_in_doubt_goes_to_the_gateway(body: bytes) -> None:
    assert who(body) == ("gateway", CHAT)


@pytest.mark.parametrize("path", ["/v1/models", "/api/highlights", "/v1/chat/completions/x", "/V1/chat/completions"])
def test_other_routes_are_the_gateways(path: str) -> None:
    assert who(b'{"model": "demo"}', path) == ("gateway", path)


def test_a_get_is_the_gateways() -> None:
    assert who(b'{"model": "demo"}', CHAT, "GET") == ("gateway", CHAT)


def test_a_model_can_be_named_by_its_path() -> None:
    assert who(b"{}", f"/models/big.one{CHAT}") == ("big.one", f"/models/big.one{CHAT}")


@pytest.mark.parametrize("fault", ["dies", str(RETRY_STATUS)])
def test_a_request_that_nobody_has_begun_to_answer_goes_to_another_replica(
    replicas: dict[str, Replica], fault: str
) -> None:
    for _ in range(4):  # whichever of the two is asked first
        replicas["demo"].faults = [fault]
        assert who(b'{"model": "demo"}') == ("demo", f"/models/demo{CHAT}")
        replicas["demo"].faults.clear()


def test_a_request_that_no_replica_can_answer_is_503(replicas: dict[str, Replica]) -> None:
    replicas["big.one"].faults = [str(RETRY_STATUS)] * 3
    status, _, got = ask(b'{"model": "big.one"}')
    assert status == 503
    assert got["app"] == "big.one"  # the body is the replica's own
    assert not replicas["big.one"].faults


@pytest.mark.parametrize("length", [1, 3 * BUFSIZE])
def test_a_request_whose_only_replica_dies_gets_an_error_like_any_other(
    replicas: dict[str, Replica], length: int
) -> None:
    replicas["big.one"].faults = ["dies"] * 3
    status, headers, body = ask(b'{"model": "big.one", "prompt": "' + b"a" * length + b'"}')
    replicas["big.one"].faults.clear()
    assert status in (502, 503)
    assert headers["retry-after"] == "1"
    assert headers["x-request-id"]
    assert body["error"]["type"] == "server_error"


@pytest.mark.parametrize("status", ["503", "429"])
def test_serves_own_refusal_of_too_many_requests_is_an_error_like_any_other(
    replicas: dict[str, Replica], status: str
) -> None:
    replicas["big.one"].faults = [status]
    refused, headers, body = ask(b'{"model": "big.one"}')
    assert refused == 429
    assert headers["retry-after"] == "1"
    assert headers["x-request-id"]
    assert body["error"]["type"] == "overloaded_error"


def test_a_body_that_does_not_come_is_408() -> None:
    with socket.create_connection(("127.0.0.1", PORTS["http"]), timeout=20) as client:
        client.sendall(b'POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\n{"model": "demo"')
        head, _, body = client.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert b"x-request-id: " in head
    assert json.loads(body)["error"]["code"] == "request_timeout"


def test_every_request_has_an_id() -> None:
    assert ask(b'{"model": "demo"}')[2]["id"]


def test_an_id_that_is_none_is_replaced_before_anybody_repeats_it(replicas: dict[str, Replica]) -> None:
    replicas["big.one"].faults = ["429"]
    _, headers, _ = ask(b'{"model": "big.one"}', headers={"x-request-id": "<not an id>"})
    assert "not" not in headers["x-request-id"]


def test_a_model_whose_replicas_are_all_down_is_the_gateways_again() -> None:
    # HAProxy has a server for such a backend nevertheless, Serve's own proxy.
    eventually(lambda: who(b'{"model": "gone"}') == ("gateway", CHAT), "HAProxy has noticed", DEADLINE_S)


def test_only_models_with_a_replica_are_on_it(text: str) -> None:
    found = {model: backend.name for model, backend in direct_models(text).items()}
    assert found == {name: f"http-model-{name}" for name in ("demo", "big.one", "gone")}


def test_a_config_without_such_models_is_left_alone(text: str) -> None:
    assert with_models(text.replace("/models/", "/other/")) == text.replace("/models/", "/other/")


def test_a_closed_config_stays_as_it_is(text: str) -> None:
    assert close_config(close_config(text)) == close_config(text)
