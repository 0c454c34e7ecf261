"""Overload, kills, upgrades and scaling on real Serve, with the fake engine."""

import copy
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.faults import MESSAGES, FaultCases, has_failed, open_stream, read_errors
from tests.harness import Config, Server, application, eventually, fake_model, sleepy_model


class TestFakeEngine(FaultCases):
    pass


def ask(server: Server, model: str, **fields: Any) -> int:
    body = {"model": model, "messages": MESSAGES, "max_tokens": 2, **fields}
    return server.http.post("/v1/chat/completions", json=body).status_code


def changed(server: Server, *, add: list[Config] = [], remove: str = "", **args: Config) -> Config:  # noqa: B006
    """Return the server's config with applications added and removed, and arguments of models updated."""
    config = copy.deepcopy(server.config)
    config["applications"] = [app for app in config["applications"] if app["name"] != remove] + add
    for model, update in args.items():
        application(config, f"model-{model}")["args"] |= update
    return config


def test_a_full_queue_is_429_with_retry_after(server: Server) -> None:
    with ThreadPoolExecutor(8) as pool:
        body = {"model": "narrow", "messages": MESSAGES, "max_tokens": 1}
        answers = list(pool.map(lambda _: server.http.post("/v1/chat/completions", json=body), range(8)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert refused[0].headers["retry-after"]
    assert refused[0].json()["error"]["type"] == "overloaded_error"


def test_a_killed_replica_breaks_its_streams_with_an_error_and_is_replaced(server: Server) -> None:
    (old,) = server.running("model-slow")
    with open_stream(server, "slow") as response:
        lines = response.iter_lines()
        first = next(lines)
        os.kill(old["pid"], signal.SIGKILL)
        assert has_failed(lines)
    assert "error" not in first
    assert ask(server, "fast") == 200
    eventually(lambda: [r for r in server.running("model-slow") if r["pid"] != old["pid"]], "a new replica runs")
    eventually(lambda: ask(server, "slow") == 200, "the model answers again")


def test_a_model_is_added_and_removed_while_a_stream_of_another_runs_on(server: Server) -> None:
    gateway = server.running("gateway", "Ingress")
    with open_stream(server, "slow") as response:
        lines = response.iter_lines()
        next(lines)
        server.deploy(changed(server, add=[fake_model("third", start_s=3)]))
        eventually(lambda: ask(server, "third") == 503, "the model is known, and loading")
        loading = server.http.post("/v1/chat/completions", json={"model": "third", "messages": MESSAGES})
        assert int(loading.headers["retry-after"]) > 0
        eventually(lambda: ask(server, "third") == 200, "the new model answers")
        server.deploy(changed(server, remove="model-third"))
        eventually(lambda: ask(server, "third") == 404, "the removed model is unknown again")
        assert next(line for line in lines if line).startswith("data: {")
    assert server.running("gateway", "Ingress") == gateway


def test_an_upgrade_loses_no_request_and_cuts_no_stream(server: Server) -> None:
    (old,) = server.running("model-slow")
    body = {"model": "slow", "messages": MESSAGES, "max_tokens": 400, "stream": True}
    with server.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        server.deploy(changed(server, slow={"fake": {"itl_s": 0.02, "seed": 7}}))
        refused = []

        def is_replaced() -> bool:
            answer = server.http.post("/v1/chat/completions", json={**body, "max_tokens": 2, "stream": False})
            refused.extend([] if answer.status_code == 200 else [(answer.status_code, answer.headers, answer.text)])
            running = [replica["pid"] for replica in server.running("model-slow")]
            return bool(running) and old["pid"] not in running

        eventually(is_replaced, "the new replica has taken over")
        rest = list(lines)
    assert refused == []
    assert "data: [DONE]" in rest
    assert not read_errors("\n".join(rest))


def test_a_model_that_cannot_start_says_why_and_leaves_the_others_alone(server: Server) -> None:
    bad = fake_model("bad")
    bad["args"]["request_format"] = "{% if %}"
    server.deploy(changed(server, add=[bad]))
    body = {"model": "bad", "messages": MESSAGES}
    eventually(lambda: "failed" in server.http.get("/v1/models/bad").text, "the model has failed")
    refused = server.http.post("/v1/chat/completions", json=body)
    assert refused.status_code == 503
    assert "request_format must be" in refused.json()["error"]["message"]
    assert ask(server, "fast") == 200
    server.deploy(changed(server, remove="model-bad"))


def test_engines_scale_up_under_load_and_down_when_their_streams_have_ended(server: Server) -> None:
    elastic = fake_model("elastic", itl_s=0.02)
    elastic["deployments"][0]["autoscaling_config"] |= {
        "max_replicas": 2,
        "target_ongoing_requests": 2,
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 0.5,
        "look_back_period_s": 2,
    }
    server.deploy(changed(server, add=[elastic]))
    eventually(lambda: ask(server, "elastic") == 200, "the model answers")
    body = {"model": "elastic", "messages": MESSAGES, "max_tokens": 600}
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(server.http.post, "/v1/chat/completions", json=body) for _ in range(4)]
        eventually(lambda: len(server.running("model-elastic")) == 2, "a second replica runs")
        assert [answer.result().status_code for answer in answers] == [200] * 4
    eventually(lambda: len(server.running("model-elastic")) == 1, "one replica is left")
    server.deploy(changed(server, remove="model-elastic"))


def test_a_model_scaled_to_zero_wakes_up_for_a_request(server: Server) -> None:
    server.deploy(changed(server, add=[sleepy_model()]))
    eventually(lambda: "idle" in server.http.get("/v1/models/sleepy").text, "the model is known, and idle")
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: ask(server, "sleepy"), range(3))) == [200] * 3
    server.deploy(changed(server, remove="model-sleepy"))


def test_a_hung_engine_is_found_and_replaced(server: Server) -> None:
    moody = fake_model("moody", hang_after_requests=1)
    moody["args"] |= {"probe_interval_s": 0.5, "hung_after_s": 5}
    server.deploy(changed(server, add=[moody]))
    eventually(lambda: ask(server, "moody") == 200, "the model answers once")
    (old,) = server.running("model-moody")
    with open_stream(server, "moody") as response:
        assert has_failed(response.iter_lines())
    eventually(lambda: [r for r in server.running("model-moody") if r["pid"] != old["pid"]], "a new replica runs")
    eventually(lambda: ask(server, "moody") == 200, "the new replica answers")
    server.deploy(changed(server, remove="model-moody"))
