"""The Ingress deployment: the HTTP application inside a Serve replica."""

import asyncio
import contextlib
import logging

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from config.models import GatewaySettings
from deployments.access_log import keep_off_stderr
from deployments.engine.directory import ModelDirectory
from deployments.ingress.api import create_api
from deployments.ingress.metrics import Metrics
from deployments.ingress.middleware.key_ring import KeyRing
from deployments.ingress.on_demand import Catalog
from deployments.ingress.services import Models
from deployments.instances.client import InstancesClient
from deployments.loop_lag import watch_loop
from deployments.telemetry import LOOP_LAG_S
from deployments.tokenizer.client import TokenizerClient
from deployments.usage.client import UsageClient
from deployments.usage.counters import Ledger

logger = logging.getLogger("ray.serve")


@serve.deployment
@serve.ingress()
class Ingress:
    """Routes HTTP requests to models. The application is built in the replica, so nothing of it is pickled."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        settings: GatewaySettings,
        tokenizer: DeploymentHandle,
        key_usage: DeploymentHandle | None,
        instances: DeploymentHandle | None = None,
    ) -> None:
        keep_off_stderr()
        self._settings = settings
        self._directory = ModelDirectory(settings.discovery_interval_s)
        self._models: Models = self._directory
        self._tokenizer = TokenizerClient(tokenizer)
        self._ledger = Ledger()
        self._ring = KeyRing(settings.auth)
        self._manager: InstancesClient | None = None
        self._metrics = Metrics()
        self._tasks: list[asyncio.Task[None]] = [asyncio.create_task(watch_loop(LOOP_LAG_S.make().set))]
        # A replica that is added under load must not answer 404 until it has looked once.
        with contextlib.suppress(Exception):
            await self._directory.refresh()
        self._tasks.append(asyncio.create_task(self._directory.watch()))
        if key_usage is not None:
            usage = UsageClient(key_usage, self._ledger, settings.auth.sync_interval_s)
            self._tasks.append(asyncio.create_task(usage.watch()))
        if instances is not None:
            await self._manage(InstancesClient(instances, settings.instances))

    async def __serve_build_asgi_app__(self) -> FastAPI:
        return create_api(
            self._models,
            self._settings,
            self._tokenizer,
            manager=self._manager,
            ring=self._ring,
            ledger=self._ledger,
            recorder=self._metrics,
            server_echoes_request_id=True,
        )

    async def _manage(self, manager: InstancesClient) -> None:
        """Follow what instances and stored keys there are; returns once they are known, or are late."""
        has_heard, has_changed = asyncio.Event(), asyncio.Event()

        def on_change() -> None:
            self._ring.learn(manager.snapshot().keys)
            catalog.starts.note_changes()
            has_heard.set()
            has_changed.set()

        async def renew() -> None:
            with contextlib.suppress(Exception):  # `watch` logs that it cannot be reached
                await manager.renew(self._settings.discovery_interval_s)

        catalog = Catalog(self._directory, manager, self._settings, renew)
        self._manager, self._models = manager, catalog
        self._tasks.append(asyncio.create_task(self._look_at(has_changed)))
        self._tasks.append(asyncio.create_task(manager.watch(on_change)))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(has_heard.wait(), self._settings.instances.stale_after_s)

    async def _look_at(self, has_changed: asyncio.Event) -> None:
        """Read the applications anew whenever an instance has changed."""
        while True:
            await has_changed.wait()
            has_changed.clear()
            try:
                await self._directory.refresh()
            except Exception:
                logger.exception("could not read the state of Serve's applications after a change")

    async def __del__(self) -> None:
        for task in self._tasks:
            task.cancel()
