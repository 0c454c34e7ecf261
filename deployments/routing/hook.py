"""How an engine's application is given its choice of replicas: the only place that uses Serve's internal hook for it.

HAProxy asks a deployment of ours, Serve's "ingress request router", to which replica a request goes. Ray has it for its
own `ray.serve.llm` and calls it unstable (`Application._with_ingress_request_router`, seen in Ray 2.60).
"""

import logging
import os
from typing import Any

import ray
from ray.serve import Application, Deployment
from ray.serve.config import RequestRouterConfig

from config.routing import RoutingSettings
from deployments.routing.deployment import EngineFront, ReplicaChoice

logger = logging.getLogger("ray.serve")

HOOK = "_with_ingress_request_router"
ROUTER = "deployments.routing.router.ReplicaRouter"
FORWARD_BODY = "RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY"
"""Serve's flag: HAProxy's questions hold the beginning of the request's body, and not only its session."""
FORWARDED_BYTES = "RAY_SERVE_HAPROXY_INGRESS_REQUEST_ROUTER_BUFSIZE"
"""Serve's flag: how much of it, which HAProxy then reserves twice for every connection; 8 MiB unless it is set."""
HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
NO_REPLICA = {"min_replicas": 0, "max_replicas": 1}
"""Until somebody calls it, and nobody does."""
CHOICE: dict[str, Any] = {
    "ray_actor_options": {"num_cpus": 0.01},
    "max_ongoing_requests": 100_000,
    "health_check_period_s": 2,
    "health_check_timeout_s": 60,
    "graceful_shutdown_timeout_s": 5,
}
"""It computes for less than a millisecond per request. While it is gone, or refuses, HAProxy answers 503: it must never
be full, and a lost one is to be noticed soon."""


def with_router(engine: Deployment, arguments: tuple[Any, ...], settings: RoutingSettings, *, is_front: bool) -> Any:
    """Bind an engine's deployment, so that its replicas are chosen as the settings say; returns an Application.

    is_front: HAProxy sends requests to its replicas itself, which is the direct data plane. Where it cannot ask for a
    choice, HAProxy's own stands, and the log says so.
    """
    if settings.policy == "load":
        return engine.bind(*arguments)
    routed = engine.options(request_router_config=router_config(settings)).bind(*arguments)
    if not is_front:
        return EngineFront.options(autoscaling_config=NO_REPLICA).bind(routed)  # type: ignore[attr-defined]
    if obstacle := obstacle_of(os.environ.get(HAPROXY, ""), has_hook=hasattr(Application, HOOK)):
        logger.warning("replicas are chosen by HAProxy, not by prompt or session: %s", obstacle)
        return engine.bind(*arguments)
    if os.environ.get(FORWARD_BODY) != "1":
        logger.warning("replicas are chosen by session and load, not by prompt: %s is not 1", FORWARD_BODY)
    choice = ReplicaChoice.options(**CHOICE).bind(routed, settings)  # type: ignore[attr-defined]
    return getattr(routed, HOOK)(choice)


def obstacle_of(haproxy: str, *, has_hook: bool) -> str:
    """Say why HAProxy cannot ask for a choice, "" when it can."""
    if not has_hook:
        return f"Ray {ray.__version__} has no Application.{HOOK}"
    return "" if haproxy == "1" else f"{HAPROXY} is not 1"


def router_config(settings: RoutingSettings) -> RequestRouterConfig:
    """Return the option `request_router_config` of an engine's deployment."""
    return RequestRouterConfig(
        request_router_class=ROUTER,
        request_router_kwargs=settings.model_dump(mode="json"),
        request_routing_stats_period_s=settings.stats_period_s,
    )
