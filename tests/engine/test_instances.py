"""Instances of the demo model on real vLLM, from `vllm serve` command lines."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults import read_errors
from tests.harness import Config, Server, application, eventually, serving
from tests.instances import MESSAGES, Owner, chat, managed_config

COMMANDS = {
    "short": "vllm serve config/demo_model --max-model-len 1024 --max-num-seqs 4",
    "long": "VLLM_LOGGING_LEVEL=INFO python -m vllm.entrypoints.openai.api_server --model=config/demo_model \\\n"
    "  --max-model-len 2k --no-enable-prefix-caching --host 0.0.0.0 --port 9000",
}


@pytest.fixture(scope="module")
def managed() -> Iterator[Server]:
    config = managed_config(max_running_instances=2, eviction_patience_s=0.5)
    config["applications"] = [application(config, "gateway"), application(config, "guided")]
    with serving(config) as server:
        yield server


@pytest.fixture(scope="module")
def owner(managed: Server) -> Owner:
    return Owner(managed)


def options_of(owner: Owner, command: str) -> Config:
    """Return the body that creates what a command says."""
    parsed: Config = owner.call("POST", "/backends/vllm/parse-command", json={"command": command}).json()
    return {name: parsed[name] for name in ("backend_type", "backend_options", "environment") if name in parsed}


def lengths_of(server: Server) -> dict[str, int | None]:
    """Return how long a context each model has, as far as the gateway knows."""
    return {card["id"]: card["max_model_len"] for card in server.http.get("/v1/models").json()["data"]}


def test_two_command_lines_become_two_models(managed: Server, owner: Owner) -> None:
    for name, command in COMMANDS.items():
        made = owner.create(name, options_of(owner, command))
        assert made["command"].startswith("vllm serve config/demo_model")
        owner.start(name)
    eventually(lambda: lengths_of(managed) == {"short": 1024, "long": 2000}, "the gateway's look at both")
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda name: chat(managed, name, temperature=0), ("short", "long")))
    assert [answer.json()["model"] for answer in answers] == ["short", "long"]
    body = {"model": "short", "messages": MESSAGES, "max_tokens": 600, "stream": True, "ignore_eos": True}
    with managed.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        owner.call("POST", "/instances/short/stop")
        rest = list(lines)
    assert "data: [DONE]" in rest
    assert not read_errors("\n".join(rest))
    owner.until("short", "stopped")


def test_ten_first_requests_are_one_start_and_the_other_makes_room(managed: Server, owner: Owner) -> None:
    """Depends on the test before: `long` runs, `short` is stopped."""
    owner.create("third", options_of(owner, COMMANDS["short"]))
    owner.start("third")
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: chat(managed, "short"), range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    assert owner.call("GET", "/instances/short/logs").text.count("a request starts it") == 1
    assert sum(owner.find(name)["status"] == "running" for name in ("short", "long", "third")) == 2


def test_a_model_that_does_not_load_says_why(managed: Server, owner: Owner) -> None:
    owner.create("missing", {"backend_options": {"model": "/nowhere/at/all"}})
    owner.call("POST", "/instances/missing/start")
    failed = eventually(lambda: (i := owner.find("missing"))["status"] == "failed" and i, "its failure")
    assert "/nowhere/at/all" in failed["message"]
    assert "Traceback" in owner.call("GET", "/instances/missing/logs").text
    refused = chat(managed, "missing")
    assert refused.status_code == 500
    assert refused.json()["error"]["code"] == "start_failed"
    assert chat(managed, "short").status_code == 200
