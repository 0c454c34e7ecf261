"""Which of two replicas gets a request, on real Serve with the fake engine, on both data planes."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.harness import PLANES, Config, Server, application, default_config, eventually, fake_model, serving

MANAGEMENT = "sk-management-0123456789"
CHAT = "/v1/chat/completions"
MODELS = ("patient", "busy")
IMBALANCE = 2
NEVER_FADES_S = 3600
WAIT_S = 30
Messages = list[dict[str, str]]


@pytest.fixture(scope="module", params=PLANES)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    config = default_config()
    gateway = application(config, "gateway")
    gateway["args"]["auth"] = {"management_keys": MANAGEMENT}
    patient = two_replicas(
        "patient", {"bytes_per_request": 1, "imbalance_requests": 1000, "session_imbalance_requests": 1000}
    )
    busy = two_replicas(
        "busy", {"bytes_per_request": 1, "imbalance_requests": IMBALANCE, "choice_half_life_s": NEVER_FADES_S}
    )
    config["applications"] = [gateway, patient, busy]
    with serving(config, plane=request.param) as server:
        for model in MODELS:
            expect(server, model, [0, 0])
        yield server


def two_replicas(name: str, routing: Config) -> Config:
    model = fake_model(name, itl_s=0.02)
    model["args"]["routing"] = {"policy": "prefix", **routing}
    model["deployments"][0] |= {"num_replicas": 2, "autoscaling_config": None}
    return model


def loads(server: Server, model: str) -> list[int]:
    """Return how many requests each replica runs, the least busy one first."""
    answer = server.http.get("/api/v1/status", headers={"x-api-key": MANAGEMENT})
    (found,) = [each for each in answer.json()["models"] if each["name"] == model]
    return sorted(replica["num_running"] for replica in found["replicas"])


def conversation(name: str, turns: int) -> Messages:
    return [{"role": "user", "content": f"{name}, turn {turn}: {'a fox and a goose ' * 20}"} for turn in range(turns)]


def open_stream(
    stack: ExitStack, server: Server, model: str, messages: Messages, session: str = "", max_tokens: int = 3000
) -> httpx.Response:
    """Begin an answer of a minute, to be ended with the stack."""
    body: Any = {"model": model, "messages": messages, "stream": True, "max_tokens": max_tokens}
    headers = {"x-session-id": session} if session else {}
    response = stack.enter_context(server.http.stream("POST", CHAT, json=body, headers=headers))
    assert response.status_code == 200, response.read()
    return response


def expect(server: Server, model: str, wanted: Sequence[int]) -> None:
    eventually(lambda: loads(server, model) == list(wanted), f"the replicas of {model} run {wanted}", WAIT_S)


@pytest.fixture(autouse=True)
def idle(server: Server) -> None:
    for model in MODELS:
        expect(server, model, [0, 0])


def test_a_conversation_stays_on_one_replica(server: Server) -> None:
    with ExitStack() as stack:
        for turns in range(1, 5):
            open_stream(stack, server, "patient", conversation("one", turns))
        expect(server, "patient", [0, 4])


def test_conversations_are_spread(server: Server) -> None:
    with ExitStack() as stack:
        for number in range(8):
            open_stream(stack, server, "patient", conversation(f"conversation {number}", 1))
        eventually(lambda: sum(found := loads(server, "patient")) == 8 and found[0] > 0, "both run some", WAIT_S)


def test_a_session_stays_on_one_replica_whatever_it_says(server: Server) -> None:
    with ExitStack() as stack:
        for number in range(4):
            open_stream(stack, server, "patient", conversation(f"of a session {number}", 1), session="mine")
        expect(server, "patient", [0, 4])


def test_a_replica_that_is_too_busy_is_passed_over(server: Server) -> None:
    # Twice, because HAProxy may not know a replica that the gateway knows: at first, or after a late health check.
    found = [share_of_six(server)]
    if not is_fair(found[-1]):
        found.append(share_of_six(server))
    assert is_fair(found[-1]), found


def share_of_six(server: Server) -> list[int]:
    """Return how many of six turns of one conversation each replica gets."""

    def all_six() -> list[int] | None:
        found = loads(server, "busy")
        return found if sum(found) == 6 else None

    expect(server, "busy", [0, 0])
    with ExitStack() as stack:
        for turns in range(1, 7):
            open_stream(stack, server, "busy", conversation("busy", turns))
        return eventually(all_six, "all run", WAIT_S)


def is_fair(loads: list[int]) -> bool:
    fewer, more = loads
    return fewer >= 1 and more - fewer <= IMBALANCE + 1


def test_other_requests_are_answered_as_well(server: Server) -> None:
    requests: list[tuple[str, Config]] = [
        ("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 2}),
        ("/tokenize", {"prompt": "Once upon a time"}),
        (CHAT, {"messages": conversation("x" * 200_000, 1), "max_tokens": 2}),
    ]
    for path, body in requests:
        answer = server.http.post(path, json={"model": "patient", **body})
        assert answer.status_code in (200, 400), answer.text
        assert "json" in answer.headers["content-type"]
    assert server.http.get("/v1/models").status_code == 200


def test_the_session_of_a_killed_replica_goes_on_elsewhere(server: Server) -> None:
    with ExitStack() as stack:
        streams = {}
        for number in range(20):
            name = f"session {number}"
            streams[name] = open_stream(stack, server, "patient", conversation(name, 1), session=name)
            if loads(server, "patient")[0] > 0:
                break
        expect(server, "patient", [1, len(streams) - 1])
        victim = server.running("model-patient")[0]
        os.kill(victim["pid"], signal.SIGKILL)
        left = eventually(lambda: only_one_runs(server), "the other replica's streams run on", WAIT_S)
        assert left in (1, len(streams) - 1)
        for name in streams:  # those that were there, too
            assert ask(server, name, turns=2) == 200
    eventually(lambda: victim["pid"] not in pids(server) and len(pids(server)) == 2, "it is replaced")
    eventually(lambda: loads(server, "patient") == [0, 0], "the new one answers")


@pytest.mark.parametrize("server", ["direct"], indirect=True)  # elsewhere the gateways choose
def test_models_answer_also_when_the_process_that_chooses_was_killed(server: Server) -> None:
    (chooser,) = server.running("model-patient", "ReplicaChoice")
    os.kill(chooser["pid"], signal.SIGKILL)
    answers = []

    def is_replaced() -> bool:
        answers.append(ask(server, "x"))
        return pids(server, "ReplicaChoice") not in ([], [chooser["pid"]])

    eventually(is_replaced, "it is replaced")
    assert set(answers) == {200}
    eventually(lambda: stays_together(server, "after"), "conversations stay on one replica again")


def stays_together(server: Server, name: str) -> bool:
    with ExitStack() as stack:
        for turns in range(1, 4):
            open_stream(stack, server, "patient", conversation(name, turns))
        eventually(lambda: sum(loads(server, "patient")) == 3, "all run", WAIT_S)
        found = loads(server, "patient") == [0, 3]
    expect(server, "patient", [0, 0])
    return found


def ask(server: Server, session: str, turns: int = 1) -> int:
    body: Any = {"model": "patient", "messages": conversation(session, turns), "max_tokens": 2}
    return server.http.post(CHAT, json=body, headers={"x-session-id": session}).status_code


def only_one_runs(server: Server) -> int:
    running = loads(server, "patient")
    return running[0] if len(running) == 1 else 0


def pids(server: Server, deployment: str = "Engine") -> list[int]:
    return [replica["pid"] for replica in server.running("model-patient", deployment)]
