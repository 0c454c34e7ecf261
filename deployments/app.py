"""The whole wiring: each function builds one application of `serve_config.yaml`.

No `from __future__ import annotations` here: Serve would then pass the YAML's raw dict, unvalidated.
"""

from typing import Any

import ray
from ray.serve import Application
from ray.serve.config import RequestRouterConfig

from config.guided import GuidedSettings
from config.models import GatewaySettings, ModelSettings
from deployments.access import require_keys
from deployments.direct.deployment import DirectEngine
from deployments.engine.deployment import Engine
from deployments.engine.resources import choose_device, engine_options, is_cpu_build
from deployments.engine.templates import to_chat_template
from deployments.exposure import is_http_on_loopback, require_closed_dashboard
from deployments.guided.deployment import GuidedCompiler, GuidedFront
from deployments.ingress.deployment import Ingress
from deployments.instances.deployment import Instances
from deployments.management_key import with_management_key
from deployments.routing.hook import NO_REPLICA, with_router
from deployments.tokenizer.deployment import Tokenizer
from deployments.usage.deployment import KeyUsage

LIGHT: dict[str, Any] = {"ray_actor_options": {"num_cpus": 0.1}}
"""Unless the YAML says otherwise. With Serve's default, a CPU each, engines on small machines would wait for ever."""
WITHOUT_BOUND: dict[str, Any] = {"max_ongoing_requests": 100_000}
"""Where requests wait long. With Serve's default, five of them would keep everybody else out."""
BY_KEY = RequestRouterConfig(request_router_class="ray.serve.experimental.consistent_hash_router.ConsistentHashRouter")
"""Everything about one constraint goes to one replica, as long as there is that replica."""


def build_gateway(args: GatewaySettings) -> Application:
    """Build the application `gateway`: the HTTP front, what works on texts, and who manages instances and counts."""
    require_closed_dashboard(args.allow_open_dashboard)
    require_keys(args.auth, is_http_on_loopback())
    settings = with_management_key(args)
    auth = settings.auth
    key_usage = KeyUsage.options(**LIGHT).bind(auth.replica_lost_after_s) if auth.has_limits() else None
    tokenizer = Tokenizer.options(**LIGHT).bind(settings.writing, settings.discovery_interval_s)
    instances = Instances.options(**LIGHT, **WITHOUT_BOUND).bind(settings, build_model)
    return Ingress.bind(settings, tokenizer, key_usage, instances)


def build_model(args: ModelSettings) -> Application:
    """Build one application `model-<name>`: the engines of one model."""
    to_chat_template(args.request_format)
    device = choose_device(args, usable_gpus)
    options: dict[str, Any] = engine_options(args, device)
    engine = DirectEngine if args.data_plane == "direct" else Engine
    is_front = args.data_plane == "direct"
    return with_router(engine.options(**options), (args, device), args.routing, is_front=is_front)


def build_guided(args: GuidedSettings) -> Application:
    """Build the application `guided`: what compiles constraints, for the engines of all models."""
    compiler = GuidedCompiler.options(**LIGHT, request_router_config=BY_KEY).bind(args)
    return GuidedFront.options(autoscaling_config=NO_REPLICA).bind(compiler)


def usable_gpus() -> float:
    """Return the cluster's GPUs, none when this environment's vLLM is the CPU build."""
    return 0.0 if is_cpu_build() else float(ray.cluster_resources().get("GPU", 0))
