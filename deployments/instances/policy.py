"""Following what holds for requests: the gateway's settings, and the keys that were made over its API."""

import asyncio
import logging
from collections.abc import Callable

from ray.serve.handle import DeploymentHandle

from deployments.instance_types import Policy

logger = logging.getLogger("ray.serve")

GATEWAY = "gateway"
INSTANCES = "Instances"
TIMEOUT_S = 5.0


class PolicyClient:
    """Asks the gateway's Instances now and then; for one event loop."""

    def __init__(self, interval_s: float) -> None:
        # Not `serve.get_deployment_handle`: it fails where the gateway is deployed later.
        self._policy = DeploymentHandle(INSTANCES, GATEWAY).options(method_name="policy")
        self._interval_s = interval_s
        self._seen = 0

    async def watch(self, on_change: Callable[[Policy], None]) -> None:
        """Call `on_change` with each policy, the first included, for ever; while it cannot be asked, the last holds."""
        is_well = True
        while True:
            try:
                policy: Policy | None = await asyncio.wait_for(self._policy.remote(self._seen), TIMEOUT_S)
                if policy is not None:
                    on_change(policy)
                    self._seen = policy.version
                is_well = True
            except Exception:
                if is_well and self._seen:
                    logger.exception("cannot ask the gateway for keys and limits; those that were last heard hold")
                is_well = False
            await asyncio.sleep(self._interval_s)
