"""The Engine deployment of a model on the direct data plane."""

import asyncio
import logging
import os

from ray import serve
from ray.serve.handle import DeploymentHandle

from config.models import GATEWAY_APP, ModelSettings
from deployments.direct.front import DirectFront
from deployments.direct.local import LocalEngine, LocalModel
from deployments.engine.client import DEPLOYMENT
from deployments.engine.deployment import EngineReplica
from deployments.engine.directory import read_applications
from deployments.ingress.metrics import Metrics
from deployments.instance_types import Policy
from deployments.instances.client import DEPLOYMENT as INSTANCES
from deployments.instances.client import PolicyClient
from deployments.openai_paths import DIRECT_PREFIX
from deployments.usage.client import DEPLOYMENT as KEY_USAGE
from deployments.usage.client import UsageClient

logger = logging.getLogger("ray.serve")

POLICY_INTERVAL_S = 1.0
POLICY_WAIT_S = 15.0
"""How long a replica that is otherwise ready waits for a gateway; it answers 503 until there is one."""


class DirectEngineReplica(EngineReplica):
    """An engine that answers HTTP itself, and its handle like any other."""

    async def __init__(self, settings: ModelSettings, device: str) -> None:  # type: ignore[misc]  # Serve awaits it
        environment = dict(os.environ)
        await super().__init__(settings, device)
        model = LocalModel(LocalEngine(self.stream_http, self.probe, self.stats), self._backend.info())
        self._front = DirectFront(model, prefix_of(settings), Metrics(), environment)
        self._sharing: asyncio.Task[None] | None = None
        self._has_policy = asyncio.Event()
        # Not `serve.get_deployment_handle`: it fails while there is no gateway.
        policy = PolicyClient(DeploymentHandle(INSTANCES, GATEWAY_APP), POLICY_INTERVAL_S)
        self._tasks.append(asyncio.create_task(policy.watch(self._take)))
        await self._tell_plane()
        try:
            await asyncio.wait_for(self._has_policy.wait(), POLICY_WAIT_S)
        except TimeoutError:
            logger.warning("the gateway has not said who may ask this model; until it does, requests are answered 503")

    async def __serve_build_asgi_app__(self) -> DirectFront:
        return self._front

    def _take(self, policy: Policy) -> None:
        before = self._front.policy
        self._front.take(policy)
        self._has_policy.set()
        if before is None or before.settings.auth != policy.settings.auth:
            self._share_usage(policy)

    def _share_usage(self, policy: Policy) -> None:
        """Count the use of keys together with everybody else who takes requests."""
        if self._sharing is not None:
            self._sharing.cancel()
            self._tasks.remove(self._sharing)
            self._sharing = None
        auth = policy.settings.auth
        if auth.has_limits():
            usage = UsageClient(DeploymentHandle(KEY_USAGE, GATEWAY_APP), self._front.ledger, auth.sync_interval_s)
            self._sharing = asyncio.create_task(usage.watch())
            self._tasks.append(self._sharing)

    async def _tell_plane(self) -> None:
        """Say which way requests will come."""
        name, wanted = self._settings.app_name, prefix_of(self._settings)
        try:
            found = (await read_applications())[name].route_prefix
        except Exception:
            logger.exception("could not read the route prefix of the application %s", name)
            return
        if found == wanted:
            logger.info("%s is on the direct data plane, at %s", name, wanted)
            return
        logger.warning(
            "%s stays on the handle data plane: its `route_prefix` is %s; write `route_prefix: %s` for the direct one",
            name,
            found or "null",
            wanted,
        )


def prefix_of(settings: ModelSettings) -> str:
    return DIRECT_PREFIX + settings.name


DirectEngine = serve.deployment(serve.ingress()(DirectEngineReplica), name=DEPLOYMENT)
