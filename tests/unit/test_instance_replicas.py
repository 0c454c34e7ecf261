from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.instances.replicas import MAX_PAST, History
from deployments.serve_details import Deployment, Replica, to_application

STARTING, RUNNING, STOPPING, MIGRATING = "STARTING", "RUNNING", "STOPPING", "PENDING_MIGRATION"


def look(history: History, *, target: int = 1, dead: Sequence[str] = (), failed: bool = False, **replicas: str) -> None:
    alive = tuple(Replica(name, state, f"node of {name}") for name, state in replicas.items())
    gone = tuple(Replica(name, "STOPPED", f"node of {name}", "worker") for name in dead)
    history.look(Deployment("", "", target, alive, gone), failed)


def begun(version: str = "v1", **replicas: str) -> History:
    """Return the history of an application that has just been deployed, and seen with these replicas."""
    history = History()
    history.deploy(version, None)
    also: dict[str, Any] = dict(replicas)
    look(history, target=len(replicas), **also)
    return history


def test_a_start_is_no_crash() -> None:
    history = begun(a=STARTING)
    look(history, a=RUNNING)
    look(history, a=RUNNING)
    assert history.num_crashes == 0


@pytest.mark.parametrize("state", [STARTING, RUNNING])
def test_a_replica_that_is_gone_is_a_crash(state: str) -> None:
    history = begun(a=state)
    look(history, b=STARTING, dead=["a"])
    assert history.num_crashes == 1
    look(history, b=RUNNING, dead=["a"])
    assert history.num_crashes == 1
    look(history, b=STOPPING)
    look(history, c=STARTING, dead=["a", "b"])
    assert history.num_crashes == 2


def test_crashes_between_two_looks_are_counted() -> None:
    history = begun(a=RUNNING)
    look(history, d=STARTING, dead=["a", "b", "c"])
    assert history.num_crashes == 3


def test_a_crash_before_the_first_look_is_counted_when_it_was_deployed_here() -> None:
    history = History()
    history.deploy("v1", None)
    look(history, dead=["a"], failed=True)
    assert history.num_crashes == 1


def test_what_was_before_anybody_looked_is_not_counted() -> None:
    history = History()
    look(history, b=RUNNING, dead=["a"])
    look(history, b=RUNNING, dead=["a"])
    assert history.num_crashes == 0
    look(history, c=STARTING, dead=["a", "b"])
    assert history.num_crashes == 1


def test_the_progress_of_what_was_deployed() -> None:
    history = History()
    history.deploy("v1", None)
    history.look(Deployment("", "", 1, (Replica("a", STARTING),)), False)
    assert history.progress() == ""
    look(history, a=STARTING)
    assert history.progress() == "placed"
    look(history, a=RUNNING)
    assert history.progress() == "ready"
    history.deploy("v2", "v1")
    look(history, a=RUNNING)
    assert history.progress() == ""


def test_scaling_down_is_no_crash() -> None:
    history = begun(a=RUNNING, b=RUNNING)
    look(history, target=1, a=RUNNING, b=RUNNING)
    look(history, target=1, a=RUNNING, b=STOPPING)
    look(history, target=1, a=RUNNING, dead=["b"])
    look(history, target=0, a=STOPPING, dead=["b"])
    look(history, target=1, c=STARTING, dead=["b", "a"])
    assert history.num_crashes == 0


def test_a_crash_among_several() -> None:
    history = begun(a=RUNNING, b=RUNNING)
    look(history, target=2, a=RUNNING, c=STARTING, dead=["b"])
    assert history.num_crashes == 1


def test_a_node_that_is_drained_is_no_crash() -> None:
    history = begun(a=RUNNING)
    look(history, a=MIGRATING, b=STARTING)
    look(history, a=STOPPING, b=RUNNING)
    assert history.num_crashes == 0


def test_an_update_is_no_crash() -> None:
    history = begun(a=RUNNING)
    history.deploy("v2", "v1")
    look(history, a=RUNNING, b=STARTING)
    assert not history.is_rolled_out(1)
    look(history, a=STOPPING, b=RUNNING)
    assert history.is_rolled_out(1)
    look(history, b=RUNNING, dead=["a"])
    assert history.num_crashes == 0


def test_a_successor_that_crashes_is_a_crash() -> None:
    history = begun(a=RUNNING)
    history.deploy("v2", "v1")
    look(history, a=RUNNING, b=STARTING)
    look(history, a=RUNNING, c=STARTING, dead=["b"])
    assert history.num_crashes == 1


def test_going_back_after_an_update_that_failed_is_no_crash() -> None:
    history = begun(a=RUNNING)
    history.deploy("v2", "v1")
    look(history, a=RUNNING, b=STARTING)
    look(history, a=RUNNING, b=STOPPING, failed=True)
    assert history.num_crashes == 1
    assert history.may_run("v1")
    history.deploy("v1", "v2")
    look(history, a=RUNNING, dead=["b"])
    assert (history.num_crashes, history.is_rolled_out(1)) == (0, True)
    look(history, c=STARTING, dead=["b", "a"])
    assert history.num_crashes == 1


def test_what_served_on_after_an_update_that_failed_and_is_lost_is_a_crash() -> None:
    history = begun(a=RUNNING)
    history.deploy("v2", "v1")
    look(history, a=RUNNING, dead=["b"], failed=True)
    look(history, dead=["b", "a"], failed=True)
    assert history.num_crashes == 2


def test_the_same_again_forgets_nothing() -> None:
    history = begun(a=RUNNING)
    look(history, b=STARTING, dead=["a"])
    history.deploy("v1", "v1")
    look(history, b=RUNNING, dead=["a"])
    assert (history.num_crashes, [one.id for one in history.replicas()]) == (1, ["a", "b"])


def test_deleting_and_running_again_is_no_crash() -> None:
    history = begun(a=RUNNING)
    history.delete()
    assert history.replicas() == []
    history.deploy("v1", None)
    look(history, a=RUNNING)  # Serve has not begun to stop it
    look(history, a=STOPPING, b=STARTING)
    look(history, b=RUNNING, dead=["a"])
    assert (history.num_crashes, [one.id for one in history.replicas()]) == (0, ["b"])


def test_what_runs_since_before_anybody_looked_may_be_any_version() -> None:
    history = History()
    look(history, a=RUNNING)
    assert history.may_run("v1")
    assert not history.is_rolled_out(1)
    history.deploy("v1", "v1")
    assert history.is_rolled_out(1)
    assert not history.may_run("v2")
    look(history, b=STARTING, dead=["a"])
    assert history.num_crashes == 1


def test_only_the_last_that_ended_are_remembered_with_all_that_is_known_of_them() -> None:
    history = begun(a0=STARTING)
    for number in range(9):
        successor: dict[str, Any] = {f"a{number + 1}": STARTING}
        look(history, dead=[f"a{number}"], **successor)
    assert [one.id for one in history.replicas()] == [*(f"a{9 - MAX_PAST + each}" for each in range(MAX_PAST)), "a9"]
    assert {one.worker_id for one in history.past.values()} == {"worker"}


def details(**fields: Any) -> dict[str, Any]:
    replica = {"replica_id": "r", "state": SimpleNamespace(value="RUNNING"), "node_id": None, "start_time_s": 1.0}
    engine = {
        "status": "HEALTHY",
        "message": "well",
        "target_num_replicas": 1,
        "replicas": [replica],
        "recent_dead_replicas": [{**replica, "state": "STOPPED", "worker_id": "w", "log_file_path": "/serve/r.log"}],
    }
    given = {"status": "RUNNING", "message": "", "source": "imperative", "deployments": {"Engine": engine}}
    return {**given, "deployed_app_config": None, "last_deployed_time_s": 7.0, **fields}


def test_the_controllers_details() -> None:
    application = to_application(details())
    engine = application.deployments["Engine"]
    assert (application.status, application.declared_args) == ("RUNNING", None)
    assert application.last_deployed_time_s == 7.0
    assert (engine.status, engine.message, engine.target) == ("HEALTHY", "well", 1)
    assert engine.replica_states == {"RUNNING": 1}
    assert engine.dead == (Replica("r", "STOPPED", "", "w", "/serve/r.log"),)


@pytest.mark.parametrize(
    ("fields", "args"),
    [
        ({"source": "declarative", "deployed_app_config": {"args": {"name": "m"}}}, {"name": "m"}),
        ({"source": SimpleNamespace(value="declarative"), "deployed_app_config": {}}, {}),
        ({"source": "declarative"}, None),  # it is being deleted
        ({"deployed_app_config": {"args": {"name": "m"}}}, None),  # the API has taken it over
    ],
)
def test_models_of_the_yaml(fields: dict[str, Any], args: dict[str, Any] | None) -> None:
    assert to_application(details(**fields)).declared_args == args
