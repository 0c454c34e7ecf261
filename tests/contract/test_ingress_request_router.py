"""What deployments/routing/ needs of Serve's ingress request router: the hook, and what HAProxy asks and reads."""

import re
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray.serve
import uvicorn
from ray.serve import Application
from ray.serve._private import build_app as serve_build
from ray.serve._private import constants
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.handle import DeploymentHandle

from config.models import ModelSettings
from config.routing import RoutingSettings
from deployments.engine.deployment import Engine
from deployments.routing import hook
from deployments.routing.deployment import NOBODY, ChoiceApp
from deployments.routing.hook import FORWARD_BODY, FORWARDED_BYTES, HAPROXY, HOOK, obstacle_of, with_router
from deployments.routing.prefixes import SESSION_HEADER
from deployments.types import HttpRequest
from tests.harness import eventually

LUA = (Path(ray.serve.__file__).parent / "_private" / "ingress_request_router.lua.tmpl").read_text()
STATUS_200 = r"^HTTP/[%d%.]+ 200"
REPLICA_ID = r'"replica_id"%s*:%s*"([^"]+)"'
REPLICA = ReplicaID("abc123", DeploymentID("Engine", "model-m"))
SETTINGS = ModelSettings(name="m", backend="fake")
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "caf\xc3\xa9"}]}'


def to_regex(lua_pattern: str) -> str:
    """Write one of Lua's patterns as Python's; they differ in what escapes."""
    return lua_pattern.replace("%s", r"\s").replace("%d", r"\d").replace("%.", r"\.")


class Selection:
    """What the application reads of Serve's selection."""

    class _Replica:
        replica_id = REPLICA

    _replica = _Replica


class Recorder:
    """Answers each choice with a replica, or an error, and remembers the questions."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.questions: list[HttpRequest] = []

    @asynccontextmanager
    async def __call__(self, request: HttpRequest) -> AsyncIterator[Any]:
        self.questions.append(request)
        if self.error is not None:
            raise self.error
        yield Selection


@contextmanager
def serving(app: Any) -> Iterator[int]:
    """Serve an ASGI application as Serve does, with uvicorn."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started, "it listens", 30)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def ask(port: int, body: bytes = BODY, headers: str = "") -> str:
    """Ask as the Lua action does, and read until the end of the connection."""
    head = f"POST /internal/route HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def replica_of(response: str) -> str:
    """Read an answer as the Lua action does."""
    assert re.search(to_regex(STATUS_200), response)
    found = re.search(to_regex(REPLICA_ID), response[response.index("\r\n\r\n") + 4 :])
    assert found is not None
    return found[1]


def test_the_question_and_the_patterns_are_those_of_this_ray() -> None:
    assert f"'{REPLICA_ID}'" in LUA
    assert f'"{STATUS_200}"' in LUA
    assert '"POST /internal/route HTTP/1.0\\r\\n"' in LUA
    assert "X-Body-Truncated: " in LUA
    assert 'SESSION_HEADER .. ": " .. session_id' in LUA
    assert SESSION_HEADER.decode() == constants.SERVE_SESSION_ID
    assert FORWARD_BODY in LUA
    assert hasattr(constants, FORWARD_BODY)
    assert hasattr(constants, FORWARDED_BYTES)
    # A replica that is not in HAProxy's map is no error: Serve's own proxy gets the request.
    assert '"unknown_replica_id"' in LUA


def test_the_answer_names_the_replica() -> None:
    recorder = Recorder()
    with serving(ChoiceApp(recorder, 5)) as port:
        headers = "X-Body-Truncated: 20/30000\r\nx-session-id: mine\r\nx-request-id: abc\r\n"
        assert replica_of(ask(port, headers=headers)) == REPLICA.to_full_id_str()
        assert replica_of(ask(port, body=b"")) == REPLICA.to_full_id_str()
    with_session, empty = recorder.questions
    assert with_session.body == BODY
    assert with_session.headers == ((SESSION_HEADER, b"mine"),)
    assert (empty.body, empty.headers) == (b"", ())


def test_a_large_body_arrives_whole() -> None:
    recorder = Recorder()
    body = b'{"prompt": "' + b"x" * 2**21
    with serving(ChoiceApp(recorder, 5)) as port:
        replica_of(ask(port, body))
    assert recorder.questions[0].body == body


@pytest.mark.parametrize("error", [RuntimeError("a fault"), TimeoutError()])
def test_a_fault_leaves_the_choice_to_serve(error: Exception) -> None:
    with serving(ChoiceApp(Recorder(error), 5)) as port:
        for _ in range(2):
            assert replica_of(ask(port)) == NOBODY


def test_nothing_else_is_served() -> None:
    with serving(ChoiceApp(Recorder(), 5)) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /models HTTP/1.0\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 404")


def test_our_answer_comes_before_haproxy_gives_up() -> None:
    assert RoutingSettings().answer_timeout_s < constants.RAY_SERVE_HAPROXY_INGRESS_REQUEST_ROUTER_TIMEOUT_S


@pytest.mark.parametrize("forward", ["0", "1"])
def test_serve_takes_the_router(forward: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(hook.logger, "warning", lambda text, *values: said.append(text % values))
    monkeypatch.setenv(HAPROXY, "1")
    monkeypatch.setenv(FORWARD_BODY, forward)
    monkeypatch.setattr(serve_build, "RAY_SERVE_ENABLE_HA_PROXY", True)
    application = with_router(Engine, (SETTINGS, "cpu"), RoutingSettings(policy="prefix"), is_front=True)
    built = serve_build.build_app(application, name="model-m")
    assert built.ingress_deployment_name == "Engine"
    (engine,) = built.deployments
    assert not engine._deployment_config.request_router_config.is_default_request_router()
    router = built.ingress_request_router_deployment
    assert router is not None
    assert router.name == "ReplicaChoice"
    assert isinstance(router.init_args[0], DeploymentHandle)
    assert router.init_args[0].deployment_name == "Engine"
    assert len(said) == (forward == "0")


@pytest.mark.parametrize("what", ["hook", "haproxy"])
def test_where_it_cannot_be_the_application_has_none_and_the_log_says_so(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(hook.logger, "warning", lambda text, *values: said.append(text % values))
    monkeypatch.setenv(HAPROXY, "0" if what == "haproxy" else "1")
    if what == "hook":
        monkeypatch.delattr(Application, HOOK)
    application = with_router(Engine, (SETTINGS, "cpu"), RoutingSettings(policy="prefix"), is_front=True)
    monkeypatch.undo()
    monkeypatch.setattr(serve_build, "RAY_SERVE_ENABLE_HA_PROXY", True)
    built = serve_build.build_app(application, name="model-m")
    assert [each.name for each in built.deployments] == ["Engine"]
    assert built.ingress_request_router_deployment is None
    assert len(said) == 1
    assert (HOOK if what == "hook" else HAPROXY) in said[0]


def test_obstacles() -> None:
    assert obstacle_of("1", has_hook=True) == ""
    assert HOOK in obstacle_of("1", has_hook=False)
    assert HAPROXY in obstacle_of("", has_hook=True)
