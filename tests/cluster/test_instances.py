"""Instances on real Serve with the fake engine: lifecycle, routing, eviction, keys, and what survives kills."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults import read_errors
from tests.harness import Config, Server, application, eventually, fake_model, serving
from tests.instances import KEY, MESSAGES, Owner, chat, managed_config

LIGHT = {"num_cpus": 0.01}


def fake(seed: int = 0, itl_s: float = 0.0, **options: Any) -> Config:
    return {"backend_type": "fake", "backend_options": {"seed": seed, "itl_s": itl_s}, **options}


@pytest.fixture(scope="module")
def managed() -> Iterator[Server]:
    config = managed_config(max_running_instances=3, eviction_patience_s=0.5, defaults=LIGHT)
    config["applications"] = [application(config, "gateway"), fake_model("declared")]
    with serving(config) as server:
        yield server


@pytest.fixture(scope="module")
def owner(managed: Server) -> Owner:
    return Owner(managed)


def replica_of_instances(server: Server) -> int:
    """Return the process of the Instances replica."""
    (replica,) = eventually(lambda: server.running("gateway", "Instances"), "an Instances replica")
    pid: int = replica["pid"]
    return pid


def test_two_are_created_used_at_once_and_one_is_stopped_under_load(managed: Server, owner: Owner) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        made = owner.create(name, fake(seed, itl_s=0.02))
        assert (made["status"], made["ready"], made["name"]) == ("stopped", False, name)
        owner.start(name)
    texts = {name: chat(managed, name).json()["choices"][0]["message"]["content"] for name in ("one", "two")}
    assert texts["one"] != texts["two"]
    body = {"model": "one", "messages": MESSAGES, "max_tokens": 200, "stream": True}
    with managed.http.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        assert owner.call("POST", "/instances/one/stop").json()["status"] == "shutting_down"
        eventually(lambda: chat(managed, "one").status_code == 503, "new requests are refused")
        refused = chat(managed, "one")
        assert refused.json()["error"]["code"] == "instance_shutting_down"
        rest = list(lines)
    assert rest[-2:] == ["data: [DONE]", ""] or "data: [DONE]" in rest
    assert not read_errors("\n".join(rest))
    owner.until("one", "stopped")
    assert chat(managed, "two").status_code == 200
    owner.remove("one", "two")


def test_ten_first_requests_are_one_start(managed: Server, owner: Owner) -> None:
    owner.create("cold", {"backend_type": "fake", "backend_options": {"start_s": 1.0}})
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: chat(managed, "cold"), range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10
    assert owner.call("GET", "/instances/cold/logs").text.count("a request starts it") == 1
    assert len(managed.running("model-cold")) == 1
    owner.remove("cold")


def test_more_than_may_run_take_turns_and_no_request_is_lost(managed: Server, owner: Owner) -> None:
    names = [f"turn-{number}" for number in range(5)]
    for name in names:
        owner.create(name, fake(itl_s=0.01))
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda name: chat(managed, name, max_tokens=20), names * 4))
    assert [answer.status_code for answer in answers] == [200] * 20, [answer.text for answer in answers]
    assert sum(owner.find(name)["status"] == "running" for name in names) <= 3
    owner.remove(*names)


def test_all_models_are_listed(managed: Server, owner: Owner) -> None:
    owner.create("listed", fake(on_demand_start=False))
    eventually(lambda: "listed" in statuses(managed), "the instance in /v1/models")
    assert statuses(managed)["declared"] == "running"
    assert statuses(managed)["listed"] == "stopped"
    declared = owner.find("declared")
    assert (declared["declared"], declared["ready"]) == (True, True)
    assert owner.call("POST", "/instances/declared/stop", 409).json()["error"] == "instance_declared"
    refused = chat(managed, "listed")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "instance_not_running")
    proxied = managed.http.post("/api/v1/instances/listed/proxy/v1/chat/completions", headers=KEY, json={})
    assert (proxied.status_code, proxied.json()["error"]) == (503, "instance_not_running")
    owner.remove("listed")


def statuses(server: Server) -> dict[str, str]:
    return {card["id"]: card["status"] for card in server.http.get("/v1/models").json()["data"]}


def test_an_update_serves_on_and_a_bad_one_changes_nothing(managed: Server, owner: Owner) -> None:
    owner.create("changing", fake(1))
    owner.start("changing")
    before = chat(managed, "changing", temperature=0).json()["choices"][0]["message"]["content"]
    with ThreadPoolExecutor(1) as pool:
        update = pool.submit(owner.call, "PUT", "/instances/changing", json=fake(2))
        answers = []
        while not update.done():
            answers.append(chat(managed, "changing").status_code)
        assert update.result().json()["options"]["backend_options"]["seed"] == 2
    assert set(answers) <= {200}
    assert chat(managed, "changing", temperature=0).json()["choices"][0]["message"]["content"] != before
    bad = {"backend_type": "vllm", "backend_options": {"model": "/nowhere"}}
    with ThreadPoolExecutor(1) as pool:
        update = pool.submit(owner.call, "PUT", "/instances/changing", 400, json=bad)
        while not update.done():
            assert chat(managed, "changing").status_code == 200
    assert owner.find("changing")["options"] == fake(2)
    assert chat(managed, "changing").status_code == 200
    owner.remove("changing")


def test_a_crash_is_restarted_and_too_many_are_a_failure(managed: Server, owner: Owner) -> None:
    owner.create("fragile", fake(max_restarts=1, restart_delay=0.1))
    owner.start("fragile")
    crash(managed, owner, "restart 1 in")
    owner.until("fragile", "running", ready=True)
    assert chat(managed, "fragile").status_code == 200
    crash(managed, owner, "after 1 restarts")
    owner.until("fragile", "failed")
    assert "after 1 restarts" in owner.find("fragile")["message"]
    owner.remove("fragile")


def crash(server: Server, owner: Owner, note: str) -> None:
    (replica,) = eventually(lambda: server.running("model-fragile"), "a replica")
    os.kill(replica["pid"], signal.SIGKILL)
    eventually(lambda: note in owner.call("GET", "/instances/fragile/logs").text, note)


def test_a_serve_deploy_leaves_instances_alone(managed: Server, owner: Owner) -> None:
    owner.create("kept", fake())
    owner.start("kept")
    before = managed.running("model-kept")
    managed.deploy(managed.config)
    managed.wait_until_ready()
    assert managed.running("model-kept") == before
    assert chat(managed, "kept").status_code == 200
    owner.remove("kept")


def test_keys_are_made_used_and_revoked(managed: Server, owner: Owner) -> None:
    owner.create("mine", fake())
    made = owner.call("POST", "/auth/keys", 201, json={"name": "guest", "instances": ["mine"]}).json()
    guest = {"authorization": f"Bearer {made['key']}"}
    body = {"model": "mine", "messages": MESSAGES, "max_tokens": 2}
    eventually(
        lambda: managed.http.post("/v1/chat/completions", json=body, headers=guest).status_code == 200, "it opens"
    )
    other = managed.http.post("/v1/chat/completions", json=body | {"model": "declared"}, headers=guest)
    assert other.status_code == 403
    assert managed.http.get("/api/v1/instances", headers=guest).status_code == 403
    listed = owner.call("GET", "/auth/keys").json()
    assert made["key"] not in str(listed)
    owner.call("DELETE", f"/auth/keys/{made['id']}", 204)
    eventually(lambda: managed.http.get("/api/v1/instances", headers=guest).status_code == 401, "the key opens nothing")
    owner.remove("mine")


def test_killed_at_each_step_nothing_is_lost(managed: Server, owner: Owner) -> None:
    """The Instances replica is killed right after it has answered; its successor has all that was answered."""
    steps: list[tuple[str, str, Any, int]] = [
        ("POST", "", fake(1), 201),
        ("POST", "/start", None, 200),
        ("PUT", "", fake(2), 200),
        ("POST", "/stop", None, 200),
        ("DELETE", "", None, 204),
    ]
    expected = ["stopped", "running", "running", "stopped", None]
    for (method, suffix, body, status), after in zip(steps, expected, strict=True):
        owner.call(method, f"/instances/survivor{suffix}", status, **({"json": body} if body else {}))
        old = replica_of_instances(managed)
        os.kill(old, signal.SIGKILL)
        eventually(lambda old=old: replica_of_instances(managed) != old, "a successor")  # type: ignore[misc]
        eventually(lambda: answers(managed), "it answers")
        if after is None:
            owner.call("GET", "/instances/survivor", 404)
        else:
            owner.until("survivor", after, ready=after == "running")
        if status == 200 and after == "running" and method == "PUT":
            assert owner.find("survivor")["options"] == fake(2)


def answers(server: Server) -> bool:
    return server.http.get("/api/v1/instances", headers=KEY).status_code == 200


def test_a_request_that_waits_outlives_the_manager(managed: Server, owner: Owner) -> None:
    owner.create("awaited", {"backend_type": "fake", "backend_options": {"start_s": 6.0}})
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(chat, managed, "awaited")
        owner.until("awaited", "running")
        os.kill(replica_of_instances(managed), signal.SIGKILL)
        assert waiting.result().status_code == 200
    eventually(lambda: answers(managed), "the successor answers")
    owner.remove("awaited")


def test_the_controller_may_be_killed(managed: Server, owner: Owner) -> None:
    owner.create("steadfast", fake())
    owner.start("steadfast")
    (controller,) = managed.actors("ServeController")
    os.kill(controller, signal.SIGKILL)
    eventually(lambda: answers(managed) and chat(managed, "steadfast").status_code == 200, "all is as before")
    assert owner.until("steadfast", "running", ready=True)["options"] == fake()
    owner.remove("steadfast")
