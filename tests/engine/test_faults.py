"""What happens to clients when the engine core dies, and what real streams do while models come and go."""

import copy
import signal

import pytest

from tests.faults import MESSAGES, FaultCases, is_idle, open_stream, read_errors
from tests.harness import Config, Server, application, eventually


class TestVllm(FaultCases):
    pass


def test_a_queued_request_is_dropped_when_its_client_leaves(server: Server) -> None:
    """More streams than the engine computes at once (max_num_seqs): those that wait leave, too."""
    import httpx

    from tests.faults import ENDLESS

    with httpx.Client(base_url=server.base_url, timeout=1, limits=httpx.Limits(max_connections=100)) as client:
        from concurrent.futures import ThreadPoolExecutor

        def leave(_: int) -> None:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/chat/completions", json={**ENDLESS, "model": "demo"})

        with ThreadPoolExecutor(80) as pool:
            list(pool.map(leave, range(80)))
    eventually(lambda: is_idle(server, "demo"), "the engine is idle after all clients left", 30)


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


def test_a_killed_engine_core_gives_errors_and_comes_back_by_itself(server: Server) -> None:
    (old,) = server.running("model-demo")
    with open_stream(server, "demo") as response:
        lines = response.iter_lines()
        next(lines)
        server.engine_core("model-demo").send_signal(signal.SIGKILL)
        rest = "\n".join(lines)
    assert read_errors(rest)
    body = {"model": "demo", "messages": MESSAGES, "max_tokens": 1}
    down = server.http.post("/v1/chat/completions", json=body)
    if down.status_code != 200:
        assert down.status_code == 503
        assert down.headers["retry-after"]
    assert server.http.get("/v1/models").status_code == 200
    eventually(
        lambda: server.http.post("/v1/chat/completions", json=body).status_code == 200, "the model answers again"
    )
    assert [replica["pid"] for replica in server.running("model-demo")] != [old["pid"]]


def test_a_killed_replica_takes_its_engine_core_with_it(server: Server) -> None:
    core = server.engine_core("model-demo")
    (replica,) = server.running("model-demo")
    import psutil

    psutil.Process(replica["pid"]).kill()
    core.wait(30)
    body = {"model": "demo", "messages": MESSAGES, "max_tokens": 1}
    eventually(
        lambda: server.http.post("/v1/chat/completions", json=body).status_code == 200, "the model answers again"
    )
