"""The application `guided` on real Serve: one compilation however many ask, and what happens when parts of it go."""

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from config.models import PROJECT_ROOT
from deployments.guided.client import APPLICATION, DEPLOYMENT
from tests.guided_probe import PREFIX
from tests.harness import Config, Server, application, default_config, eventually, serving

TIMEOUT_S = 60
SHORT_S = 2
ANSWER_TIMEOUT_S = 100


class Probe:
    """A process that asks, over Serve's handles, in the way that engine replicas do."""

    def __init__(self, server: Server) -> None:
        flags = server.config["controller_options"]["runtime_env"]["env_vars"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.guided_probe", server.cluster.address],
            cwd=PROJECT_ROOT,
            env={**os.environ, **server.cluster.environment, **flags},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def __call__(self, command: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, *arguments]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(PREFIX):
                return json.loads(line.removeprefix(PREFIX))
        raise AssertionError("the process that asks for constraints ended")

    def compile(self, *schemas: str, timeout_s: float = TIMEOUT_S) -> list[Config]:
        answers: list[Config] = self("compile", schemas, timeout_s)
        return answers

    def total(self, name: str) -> int:
        """Add up one of CompilerStats over all replicas."""
        return sum(stats[name] for stats in self("stats"))

    def close(self) -> None:
        with self._process:
            self._process.kill()


def schema(name: str, num_properties: int = 1) -> str:
    """Return a schema that is like no other, and takes long to compile when it has many properties."""
    properties = {f"{name}{index}": {"type": "string"} for index in range(num_properties)}
    return json.dumps({"type": "object", "properties": properties})


def slow(name: str) -> str:
    return schema(name, 30_000)


def types(answers: list[Config]) -> list[str]:
    return [answer["type"] for answer in answers]


def problems(answers: list[Config]) -> list[Config]:
    return [answer for answer in answers if answer["type"] != "Compiled"]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    config = default_config()
    guided = application(config, APPLICATION)
    guided["args"]["constraints"] = {"max_bytes": 2**22, "max_properties": 10**6, "max_schema_nodes": 10**6}
    guided["args"]["compilation"] = {"timeout_s": 600}
    guided["deployments"][0]["num_replicas"] = 2
    config["applications"] = [application(config, "gateway"), guided]
    with serving(config) as server:
        yield server


@pytest.fixture(scope="module")
def probe(server: Server) -> Iterator[Probe]:
    with contextlib.closing(Probe(server)) as probe:
        assert problems(probe.compile(schema("first"))) == []
        yield probe


def test_32_first_requests_make_one_compilation(probe: Probe) -> None:
    before = probe.total("num_compiled")
    wanted = schema("together")
    answers = probe.compile(*[wanted] * 32)
    assert problems(answers) == []
    assert probe.total("num_compiled") == before + 1
    (again,) = probe.compile(wanted)
    assert again["is_cached"]
    assert probe("find", wanted, TIMEOUT_S) == again
    assert probe("find", schema("unheard-of"), TIMEOUT_S) is None


def test_each_constraint_belongs_to_one_replica(probe: Probe) -> None:
    before = probe("stats")
    wanted = [schema(f"one-of-many-{number}") for number in range(16)]
    assert problems(probe.compile(*wanted * 4)) == []
    after = probe("stats")
    assert len(after) == 2
    assert sum(stats["num_compiled"] for stats in after) == sum(stats["num_compiled"] for stats in before) + 16
    assert min(stats["num_cached"] for stats in after) > 0


def test_two_callers_get_one_compilation(server: Server, probe: Probe) -> None:
    with contextlib.closing(Probe(server)) as other:
        other.compile(schema("first"))
        before = probe.total("num_compiled")
        wanted = schema("shared")
        for caller in (probe, other):
            caller("begin", "shared", wanted, TIMEOUT_S)
        assert problems([caller("end", "shared") for caller in (probe, other)]) == []
        assert probe.total("num_compiled") == before + 1


def test_a_compilation_ends_when_the_last_who_waits_leaves(server: Server, probe: Probe) -> None:
    with contextlib.closing(Probe(server)) as other:
        for caller in (probe, other):
            caller("begin", "slow", slow("left"), TIMEOUT_S)
            eventually(lambda: probe.total("num_under_way") == 1, "it is compiled")
        other("leave", "slow")
        assert other.total("num_under_way") == 1
        probe("leave", "slow")
        eventually(lambda: probe.total("num_under_way") == 0, "the compilation has ended")
        assert probe("find", slow("left"), TIMEOUT_S) is None


def test_a_compilation_ends_when_the_process_that_waits_is_killed(server: Server, probe: Probe) -> None:
    with contextlib.closing(Probe(server)) as other:
        other("begin", "slow", slow("lost"), TIMEOUT_S)
        eventually(lambda: probe.total("num_under_way") == 1, "it is compiled")
    eventually(lambda: probe.total("num_under_way") == 0, "the compilation has ended")


def test_what_takes_too_long_is_unavailable_and_its_compilation_ends(probe: Probe) -> None:
    (answer,) = probe.compile(slow("late"), timeout_s=SHORT_S)
    assert answer["type"] == "EngineUnavailableError"
    eventually(lambda: probe.total("num_under_way") == 0, "the compilation has ended")


def test_a_replica_that_is_killed_costs_a_retry(server: Server, probe: Probe) -> None:
    wanted = [schema(f"killed-{number}") for number in range(8)]
    probe("begin", "slow", slow("killed"), TIMEOUT_S)
    eventually(lambda: probe.total("num_under_way") == 1, "it is compiled")
    old = server.running(APPLICATION, DEPLOYMENT)
    os.kill(old[0]["pid"], signal.SIGKILL)
    assert problems(probe.compile(*wanted)) == []
    probe("leave", "slow")

    def is_replaced() -> bool:
        return {replica["pid"] for replica in server.running(APPLICATION, DEPLOYMENT)} > {old[1]["pid"]}

    eventually(is_replaced, "a new replica runs")
    assert problems(probe.compile(*wanted)) == []


def test_without_the_application_constraints_are_unavailable_until_it_is_deployed(server: Server, probe: Probe) -> None:
    complete = server.config
    without = copy.deepcopy(complete)
    without["applications"] = [application(without, "gateway")]
    server.deploy(without)
    with contextlib.closing(Probe(server)) as new:
        for caller in (probe, new):
            eventually(lambda caller=caller: is_unavailable(caller), "the application is gone")  # type: ignore[misc]
        assert f"deploy the application `{APPLICATION}`" in new.compile(schema("no"), timeout_s=SHORT_S)[0]["message"]
        server.deploy(complete)
        for caller in (probe, new):
            eventually(lambda caller=caller: types(caller.compile(schema("back"))) == ["Compiled"], "it is back")  # type: ignore[misc]


def is_unavailable(caller: Probe) -> bool:
    answers = caller.compile(schema("nowhere"), schema("nowhere-either"), timeout_s=SHORT_S)
    return types(answers) == ["EngineUnavailableError"] * 2
