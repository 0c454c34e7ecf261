"""What deployments/routing/router.py needs of Ray's RequestRouter, without a cluster."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from ray.serve._private.build_app import build_app
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID, RequestMetadata
from ray.serve.request_router import PendingRequest

from config.models import ModelSettings
from config.routing import RoutingSettings
from deployments.engine.deployment import Engine
from deployments.routing.hook import router_config, with_router
from deployments.types import HttpRequest
from tests.aio import run, settle

DEPLOYMENT = DeploymentID("Engine", "model-m")
TEXT = b'{"messages": [{"role": "user", "content": "%s"}]}' % (b"a fox " * 100)


@dataclass
class Replica:
    """What the router reads of Serve's RunningReplica."""

    name: str
    max_ongoing_requests: int = 4
    routing_stats: dict[str, float] = field(default_factory=dict)
    asked: int = 0

    @property
    def replica_id(self) -> ReplicaID:
        return ReplicaID(self.name, DEPLOYMENT)

    async def get_queue_len(self, *, deadline_s: float) -> int:
        self.asked += 1
        return 0


def make_router(replicas: list[Replica], **settings: Any) -> Any:
    """Make a router as Serve does: out of the deployment's option."""
    config = router_config(RoutingSettings(**{"bytes_per_request": 1, **settings}))
    router = config.get_request_router_class()(
        deployment_id=DEPLOYMENT,
        handle_source=DeploymentHandleSource.REPLICA,
        self_node_id="node",
        use_replica_queue_len_cache=True,
        prefer_local_node_routing=False,
    )
    router.initialize_state(**config.request_router_kwargs)
    router.update_replicas(replicas)
    return router


def pending(body: bytes = TEXT, session: bytes = b"", request_id: str = "id") -> PendingRequest:
    headers = ((b"x-session-id", session),) if session else ()
    metadata = RequestMetadata(request_id=request_id, internal_request_id=request_id)
    return PendingRequest([HttpRequest("POST", "/v1/chat/completions", b"", headers, body)], {}, metadata)


async def choose(router: Any, request: PendingRequest) -> str:
    replica: Replica = await router._choose_replica_for_request(request)
    router.on_send_request(replica.replica_id)
    return replica.name


def test_a_conversation_stays_and_nobody_is_asked() -> None:
    async def main() -> None:
        replicas = [Replica("a"), Replica("b")]
        router = make_router(replicas)
        await settle()
        asked = [replica.asked for replica in replicas]  # when Serve first sees a replica
        first = await choose(router, pending())
        for _ in range(3):
            assert await choose(router, pending()) == first
        assert [replica.asked for replica in replicas] == asked

    run(main())


def test_two_calls_of_one_request_that_wait_at_a_time_both_get_a_replica() -> None:
    async def main() -> None:
        router = make_router([])
        one = asyncio.create_task(choose(router, pending(request_id="same")))
        other = asyncio.create_task(choose(router, pending(request_id="same")))
        await settle()
        assert not one.done()
        assert not other.done()
        router.update_replicas([Replica("a")])
        assert await asyncio.wait_for(one, 10) == await asyncio.wait_for(other, 10) == "a"

    run(main())


def test_each_of_many_requests_at_once_gets_the_replica_that_was_chosen_for_it() -> None:
    async def main() -> None:
        router = make_router(
            [Replica(name, max_ongoing_requests=1000) for name in "abc"], session_imbalance_requests=500
        )
        sessions = [f"session {number % 10}".encode() for number in range(100)]
        chosen = await asyncio.gather(
            *(choose(router, pending(session=session, request_id=f"{n}")) for n, session in enumerate(sessions))
        )
        places: dict[bytes, set[str]] = {}
        for session, name in zip(sessions, chosen, strict=True):
            places.setdefault(session, set()).add(name)
        assert [len(names) for names in places.values()] == [1] * 10
        assert len(set(chosen)) > 1

    run(main())


def test_a_call_that_is_given_up_leaves_the_others_waiting() -> None:
    async def main() -> None:
        router = make_router([])
        one = asyncio.create_task(choose(router, pending(request_id="same")))
        other = asyncio.create_task(choose(router, pending(request_id="same")))
        await settle()
        one.cancel()
        await settle()
        router.update_replicas([Replica("a")])
        assert await asyncio.wait_for(other, 10) == "a"
        assert one.cancelled()

    run(main())


def test_a_full_replica_is_passed_over() -> None:
    async def main() -> None:
        replicas = {name: Replica(name, max_ongoing_requests=2) for name in "ab"}
        router = make_router(list(replicas.values()))
        await settle()
        first = await choose(router, pending())
        await choose(router, pending())
        assert await choose(router, pending()) != first

    run(main())


@pytest.mark.parametrize("stats", [{"num_running": 60.0, "num_waiting": 40.0}, {"num_running": 100.0}])
def test_what_replicas_report_counts(stats: Mapping[str, float]) -> None:
    async def main() -> None:
        router = make_router([Replica("a", 1000), Replica("b", 1000)])
        first = await choose(router, pending())
        next(each for each in router.curr_replicas.values() if each.name == first).routing_stats = dict(stats)
        assert await choose(router, pending()) != first

    run(main())


@pytest.mark.parametrize("arguments", [[], ["a text"], [object()]])
def test_other_calls_go_by_load(arguments: list[Any]) -> None:
    async def main() -> None:
        router = make_router([Replica("a", 1000), Replica("b", 1000)])
        metadata = RequestMetadata(request_id="id", internal_request_id="id")
        chosen = [await choose(router, PendingRequest(arguments, {}, metadata)) for _ in range(10)]
        assert sorted(chosen) == ["a"] * 5 + ["b"] * 5

    run(main())


def test_a_fault_leaves_any_replica() -> None:
    async def main() -> None:
        router = make_router([Replica("a"), Replica("b")])
        router._loads = None
        ranks = await router.choose_replicas(list(router.curr_replicas.values()), pending())
        assert sorted(replica.name for (replica,) in ranks) == ["a", "b"]

    run(main())


def test_an_engine_behind_the_gateway_has_a_front_without_a_replica() -> None:
    """With HAProxy, Serve refuses a front that chooses its own replicas."""
    settings = ModelSettings(name="m", backend="fake")
    application = with_router(Engine, (settings, "cpu"), RoutingSettings(policy="prefix"), is_front=False)
    deployments = {each.name: each for each in build_app(application, name="model-m").deployments}
    assert set(deployments) == {"Engine", "EngineFront"}
    assert build_app(application, name="model-m").ingress_deployment_name == "EngineFront"
    assert not deployments["Engine"]._deployment_config.request_router_config.is_default_request_router()
    assert deployments["EngineFront"]._deployment_config.autoscaling_config.min_replicas == 0


def test_choice_by_load_is_left_to_serve() -> None:
    settings = ModelSettings(name="m", backend="fake")
    for is_front in (True, False):
        application = with_router(Engine, (settings, "cpu"), RoutingSettings(policy="load"), is_front=is_front)
        (engine,) = build_app(application, name="model-m").deployments
        assert engine._deployment_config.request_router_config.is_default_request_router()
