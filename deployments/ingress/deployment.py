"""The Ingress deployment: the HTTP application inside a Serve replica."""

import asyncio
import contextlib

from fastapi import FastAPI
from ray import serve

from config.models import GatewaySettings
from deployments.engine.client import ModelDirectory
from deployments.ingress.api import create_api


@serve.deployment
@serve.ingress()
class Ingress:
    """Routes HTTP requests to models. The application is built in the replica, so nothing of it is pickled."""

    async def __init__(self, settings: GatewaySettings) -> None:  # type: ignore[misc]  # Serve awaits it
        self._settings = settings
        self._models = ModelDirectory(settings.discovery_interval_s)
        # A replica that is added under load must not answer 404 until it has looked once.
        with contextlib.suppress(Exception):
            await self._models.refresh()
        self._watch = asyncio.create_task(self._models.watch())

    async def __serve_build_asgi_app__(self) -> FastAPI:
        return create_api(self._models, self._settings, server_echoes_request_id=True)

    async def __del__(self) -> None:
        self._watch.cancel()
