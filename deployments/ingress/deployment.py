"""The Ingress deployment: the HTTP application inside a Serve replica."""

import asyncio
import contextlib

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from config.models import GatewaySettings
from deployments.engine.client import ModelDirectory
from deployments.ingress.api import create_api
from deployments.tokenizer.client import TokenizerClient
from deployments.usage.client import UsageClient
from deployments.usage.counters import Ledger


@serve.deployment
@serve.ingress()
class Ingress:
    """Routes HTTP requests to models. The application is built in the replica, so nothing of it is pickled."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: GatewaySettings, tokenizer: DeploymentHandle, key_usage: DeploymentHandle | None
    ) -> None:
        self._settings = settings
        self._models = ModelDirectory(settings.discovery_interval_s)
        self._tokenizer = TokenizerClient(tokenizer)
        self._ledger = Ledger()
        # A replica that is added under load must not answer 404 until it has looked once.
        with contextlib.suppress(Exception):
            await self._models.refresh()
        self._tasks = [asyncio.create_task(self._models.watch())]
        if key_usage is not None:
            usage = UsageClient(key_usage, self._ledger, settings.auth.sync_interval_s)
            self._tasks.append(asyncio.create_task(usage.watch()))

    async def __serve_build_asgi_app__(self) -> FastAPI:
        return create_api(
            self._models, self._settings, self._tokenizer, ledger=self._ledger, server_echoes_request_id=True
        )

    async def __del__(self) -> None:
        for task in self._tasks:
            task.cancel()
