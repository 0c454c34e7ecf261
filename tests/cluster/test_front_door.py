"""Keys, limits over several ingress replicas, deadlines and waiting, on real Serve with the fake engine."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.bad_requests import ASK, CHAT
from tests.faults import read_errors
from tests.harness import Config, Server, application, default_config, eventually, fake_model, serving, sleepy_model

INFERENCE = "sk-inference-0123456789"
LIMITED = {name: f"sk-{name}-0123456789abcdef" for name in ("few-requests", "few-tokens", "one-at-once")}
MANAGEMENT = "sk-management-0123456789"
IDLE_S = 3
FIRST_BYTE_S = 20


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A graph with keys and limits, two ingress replicas and short deadlines. The keys come out of the environment."""
    secrets = {"TEST_INFERENCE": INFERENCE, "TEST_MANAGEMENT": MANAGEMENT}
    secrets |= {variable(name): key for name, key in LIMITED.items()}
    config = default_config()
    gateway = application(config, "gateway")
    gateway["args"] = {
        "auth": {
            "inference_keys": "${TEST_INFERENCE}",
            "management_keys": "${TEST_MANAGEMENT}",
            "keys": [
                limited_key("few-requests", requests_per_minute=4),
                limited_key("few-tokens", tokens_per_minute=40),
                limited_key("one-at-once", concurrent_requests=1),
            ],
            "sync_interval_s": 0.1,
        },
        "deadlines": {"first_byte_s": FIRST_BYTE_S, "idle_s": IDLE_S, "total_s": 60, "heartbeat_s": 0.5},
        "limits": {"max_body_bytes": 1024 * 1024},
    }
    gateway["deployments"][0] |= {"num_replicas": 2, "autoscaling_config": None}
    flood = fake_model("flood", max_model_len=2**24)
    config["applications"] = [
        gateway,
        fake_model("fast"),
        fake_model("late", ttft_s=60),
        fake_model("stuck", itl_s=60),
        sleepy_model(),
        flood,
    ]
    with pytest.MonkeyPatch.context() as environment:
        for name, value in secrets.items():
            environment.setenv(name, value)
        with serving(config) as server:
            yield server


def variable(name: str) -> str:
    return "TEST_" + name.replace("-", "_").upper()


def limited_key(name: str, **limits: int) -> Config:
    return {"name": name, "key": f"${{{variable(name)}}}", "limits": limits}


def post(server: Server, key: str, model: str = "fast", **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": ASK, "max_tokens": 4, **fields}
    # A connection of its own, so that HAProxy spreads requests over the ingress replicas.
    return httpx.post(f"{server.base_url}{CHAT}", json=body, headers={"authorization": f"Bearer {key}"}, timeout=60)


def test_without_a_key_nothing_but_health_answers(guarded: Server) -> None:
    assert guarded.http.get("/health").status_code == 200
    for method, path in [("GET", "/v1/models"), ("POST", CHAT), ("POST", "/tokenize"), ("GET", "/health/deep")]:
        response = guarded.http.request(method, path)
        assert response.status_code == 401
        assert response.json()["error"]["type"] == "authentication_error"


def test_keys_in_either_header(guarded: Server) -> None:
    for header in ({"authorization": f"Bearer {INFERENCE}"}, {"x-api-key": INFERENCE}, {"x-api-key": MANAGEMENT}):
        assert guarded.http.get("/v1/models", headers=header).status_code == 200
    assert guarded.http.get("/v1/models", headers={"x-api-key": INFERENCE + "0"}).status_code == 401


def test_the_official_client_raises_on_a_wrong_key(guarded: Server) -> None:
    with (
        openai.OpenAI(base_url=f"{guarded.base_url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


def test_no_key_reaches_a_process_of_the_graph(guarded: Server) -> None:
    """Only hashes are deployed: neither Serve's state nor the logs hold a key."""
    logs = [path for path in guarded.path.parent.rglob("*") if path.is_file() and path != guarded.path]
    assert logs
    post(guarded, INFERENCE)
    secrets = [key.encode() for key in (INFERENCE, MANAGEMENT, *LIMITED.values())]
    for path in logs:
        content = path.read_bytes()
        assert not [key for key in secrets if key in content], path


def test_requests_per_minute_hold_over_all_ingress_replicas(guarded: Server) -> None:
    """The calendar minute may change in between, so what is seen is that some are refused, not which."""
    answers = []

    def ask() -> bool:
        answers.append(post(guarded, LIMITED["few-requests"], max_tokens=1))
        return answers[-1].status_code == 429

    eventually(ask, "the limit is reached")
    passed = [answer for answer in answers if answer.status_code == 200]
    # Exact but for what both replicas admit within one exchange of their counts.
    assert 4 <= len(passed) <= 8
    refused = answers[-1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(refused.headers["retry-after"]) <= 120
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert passed[0].headers["x-ratelimit-limit-requests"] == "4"
    assert post(guarded, INFERENCE).status_code == 200


def test_tokens_per_minute(guarded: Server) -> None:
    statuses = []

    def ask() -> bool:
        statuses.append(post(guarded, LIMITED["few-tokens"], max_tokens=10).status_code)
        return statuses[-1] == 429

    eventually(ask, "the tokens are used up")
    assert statuses[0] == 200


def test_concurrent_requests_hold_over_all_ingress_replicas(guarded: Server) -> None:
    key = LIMITED["one-at-once"]
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": "stuck", "messages": ASK, "max_tokens": 4, "stream": True}
    with httpx.stream("POST", f"{guarded.base_url}{CHAT}", json=body, headers=headers, timeout=60) as response:
        assert response.status_code == 200
        eventually(lambda: all(post(guarded, key).status_code == 429 for _ in range(6)), "both replicas refuse")
    eventually(lambda: all(post(guarded, key).status_code == 200 for _ in range(4)), "the key is free again")


def test_an_answer_that_does_not_begin_in_time_is_an_error_event(guarded: Server) -> None:
    response = post(guarded, INFERENCE, model="late", stream=True)
    assert response.status_code == 200, response.text
    assert response.text.startswith(": waiting")
    assert [error["code"] for error in read_errors(response.text)] == ["deadline_exceeded"]


def test_a_stream_that_stops_is_given_up_with_an_error_event(guarded: Server) -> None:
    response = post(guarded, INFERENCE, model="stuck", stream=True)
    assert [error["code"] for error in read_errors(response.text)] == ["deadline_exceeded"]
    assert "[DONE]" not in response.text


def test_a_stream_for_a_cold_model_is_sent_comments_until_it_begins(guarded: Server) -> None:
    response = post(guarded, INFERENCE, model="sleepy", stream=True)
    assert response.text.startswith(": waiting for the model\n\n: waiting")
    assert response.text.rstrip().endswith("data: [DONE]")


def test_a_stream_for_a_cold_model_is_read_by_the_official_client(guarded: Server) -> None:
    with openai.OpenAI(base_url=f"{guarded.base_url}/v1", api_key=INFERENCE, max_retries=0) as client:
        stream = client.chat.completions.create(model="sleepy", messages=ASK, max_tokens=3, stream=True)
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
        with pytest.raises(openai.APIError, match="no progress"):
            list(client.chat.completions.create(model="late", messages=ASK, stream=True))


def test_a_reader_that_stops_makes_nobody_hold_its_answer(guarded: Server) -> None:
    """The fake engine writes as fast as it is let: without backpressure hundreds of megabytes would pile up."""
    replicas = guarded.running("model-flood") + guarded.running("gateway", "Ingress")
    pids = [replica["pid"] for replica in replicas]
    assert len(pids) == 3
    before = resident_bytes(pids)
    body = {"model": "flood", "messages": ASK, "max_tokens": 2**23, "stream": True}
    headers = {"authorization": f"Bearer {INFERENCE}"}
    with httpx.stream("POST", f"{guarded.base_url}{CHAT}", json=body, headers=headers, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        eventually(lambda: is_still(pids), "nobody works for the reader that stopped")
        assert resident_bytes(pids) - before < 150 * 2**20
    eventually(lambda: guarded.stats("model-flood").num_running == 0, "the request was given up")
    assert post(guarded, INFERENCE).status_code == 200


def resident_bytes(pids: list[int]) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


def is_still(pids: list[int], window_s: float = 1.0) -> bool:
    """Say whether processes compute next to nothing."""
    processes = [psutil.Process(pid) for pid in pids]
    before = [sum(process.cpu_times()[:2]) for process in processes]
    end = time.monotonic() + window_s
    while time.monotonic() < end:
        time.sleep(0.05)
    after = [sum(process.cpu_times()[:2]) for process in processes]
    return sum(after) - sum(before) < 0.3 * window_s


def test_deep_health_reports_each_model(guarded: Server) -> None:
    answer = guarded.http.get("/health/deep", params={"model": "fast"}, headers={"x-api-key": INFERENCE})
    assert answer.status_code == 200, answer.text
    assert json.loads(answer.text)["models"]["fast"]["ok"] is True
    assert guarded.http.get("/health/deep?model=nobody", headers={"x-api-key": INFERENCE}).status_code == 404
