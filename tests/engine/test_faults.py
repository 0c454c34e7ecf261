"""What happens to clients when the engine core dies, and what real streams do while models come and go."""

import contextlib
import copy
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from tests.faults import ABORT_TIMEOUT_S, MESSAGES, FaultCases, is_idle, leave_after, open_stream, read_errors
from tests.harness import PLANES, Config, Server, application, eventually

planes = PLANES


@pytest.fixture(autouse=True)
def recovered(server: Server) -> Iterator[None]:
    """Leave a model that answers to whatever comes next, also when a test fails half-way."""
    yield
    body = {"model": "demo", "messages": MESSAGES, "max_tokens": 1}
    eventually(
        lambda: server.http.post("/v1/chat/completions", json=body).status_code == 200, "the model answers again"
    )
    eventually(lambda: server.http.get("/health").status_code == 200, "the gateway sees it")


class TestVllm(FaultCases):
    pass


def test_a_queued_request_is_dropped_when_its_client_leaves(server: Server) -> None:
    """More answers than the engine computes at once (max_num_seqs is 64, each request wants 10)."""
    with ThreadPoolExecutor(8) as pool:
        leaving = [pool.submit(leave_after, server, "demo", 4.0) for _ in range(8)]
        eventually(lambda: server.stats("model-demo").num_waiting > 0, "requests wait in the engine")
        for client in leaving:
            client.result()
    eventually(lambda: is_idle(server, "demo"), "the engine is idle after all clients left", ABORT_TIMEOUT_S)


def second_model(server: Server) -> Config:
    config = copy.deepcopy(server.config)
    second = copy.deepcopy(application(config, "model-demo"))
    second["name"] = "model-second"
    second["args"]["name"] = "second"
    second["args"]["request_format"] = "plain"
    config["applications"].append(second)
    return config


def test_a_second_model_is_deployed_while_a_stream_of_the_first_runs_on(server: Server) -> None:
    before = server.config
    with open_stream(server, "demo") as response:
        lines = response.iter_lines()
        next(lines)
        server.deploy(second_model(server))
        server.wait_until_ready()
        answer = server.http.post(
            "/v1/chat/completions", json={"model": "second", "messages": MESSAGES, "max_tokens": 4}
        )
        assert answer.json()["model"] == "second"
        rest = "\n".join(lines)
    assert "data: [DONE]" in rest
    assert not read_errors(rest)
    assert_plain_format_equals_completions(server)
    server.deploy(before)
    eventually(lambda: not server.replicas("model-second"), "the second model is gone")


def assert_plain_format_equals_completions(server: Server) -> None:
    messages = [{"role": "user", "content": "The fox"}, {"role": "assistant", "content": "is red"}]
    chat = {"model": "second", "messages": messages, "max_tokens": 1}
    completion = {"model": "second", "prompt": "The fox is red", "max_tokens": 1}
    counts = [
        server.http.post(path, json=body).json()["usage"]["prompt_tokens"]
        for path, body in (("/v1/chat/completions", chat), ("/v1/completions", completion))
    ]
    assert counts[0] == counts[1]


def unavailable(server: Server, body: dict[str, Any]) -> httpx.Response | None:
    response = server.http.post("/v1/chat/completions", json=body)
    return response if response.status_code == 503 else None


def test_a_killed_engine_core_gives_errors_and_comes_back_by_itself(server: Server) -> None:
    (old,) = server.running("model-demo")
    with open_stream(server, "demo") as response:
        lines = response.iter_lines()
        next(lines)
        server.engine_core("model-demo").send_signal(signal.SIGKILL)
        rest = "\n".join(lines)
    assert read_errors(rest)
    body = {"model": "demo", "messages": MESSAGES, "max_tokens": 1}
    down = eventually(lambda: unavailable(server, body), "the gateway says that the model is away")
    assert down.headers["retry-after"]
    eventually(lambda: server.http.get("/health").status_code == 503, "the gateway is not healthy without an engine")
    assert server.http.get("/v1/models").status_code == 200
    eventually(
        lambda: server.http.post("/v1/chat/completions", json=body).status_code == 200, "the model answers again"
    )
    assert [replica["pid"] for replica in server.running("model-demo")] != [old["pid"]]


def test_a_killed_replica_takes_its_engine_core_with_it(server: Server) -> None:
    core = server.engine_core("model-demo")
    (replica,) = server.running("model-demo")
    psutil.Process(replica["pid"]).kill()
    core.wait(120)
    body = {"model": "demo", "messages": MESSAGES, "max_tokens": 1}
    eventually(
        lambda: server.http.post("/v1/chat/completions", json=body).status_code == 200, "the model answers again"
    )


def generates(server: Server) -> bool:
    try:
        report = server.http.get("/health/deep").json()["models"]["demo"]
    except httpx.TimeoutException:  # it waits for a replica that is starting
        return False
    return bool(report.get("ok"))


def test_a_hung_engine_core_is_found_and_replaced(server: Server) -> None:
    """A stopped process is not dead: it only never answers, and does not end with its replica by itself."""
    core = server.engine_core("model-demo")
    (old,) = server.running("model-demo")
    with open_stream(server, "demo") as response:
        lines = response.iter_lines()
        next(lines)
        core.suspend()
        try:
            rest = "\n".join(lines)
            assert read_errors(rest)
            core.wait(120)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                core.kill()
    eventually(lambda: generates(server), "the model generates again")
    assert [replica["pid"] for replica in server.running("model-demo")] != [old["pid"]]


def test_an_idle_engine_core_that_hangs_is_found(server: Server) -> None:
    core = server.engine_core("model-demo")
    core.suspend()
    try:
        assert server.http.get("/health").status_code == 200, "the cheap probe cannot know"
        core.wait(240)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            core.kill()
    eventually(lambda: generates(server), "the model generates again")
