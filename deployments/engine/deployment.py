"""The Engine deployment: one replica is one engine."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator

from ray import serve

from config.models import ModelSettings
from deployments.engine.asgi import stream_asgi
from deployments.engine.backend import make_backend
from deployments.errors import EngineUnavailableError, InvalidRequestError
from deployments.types import Accepted, EngineStats, HttpHead, HttpRequest, ModelInfo

logger = logging.getLogger("ray.serve")

DEATH_POLL_S = 0.2
LAST_WORDS_S = 1.0
"""Time for the error frames of broken streams to leave before the process ends."""


@serve.deployment
class Engine:
    """Serves one model's OpenAI routes to the ingress, as raw bytes over its handle."""

    async def __init__(self, settings: ModelSettings, device: str) -> None:  # type: ignore[misc]  # Serve awaits it
        self._settings = settings
        context = serve.get_replica_context()
        if context.app_name != settings.app_name:
            raise InvalidRequestError(f"the application must be called `{settings.app_name}`, not `{context.app_name}`")
        self._backend = make_backend(settings, device, context.rank.local_rank if context.rank else 0)
        try:
            await self._backend.start()
        except BaseException:
            self._backend.shutdown()
            raise
        self._watch = asyncio.create_task(self._exit_when_dead())
        logger.info("model %s is ready on %s: %s", settings.name, device, self._backend.info())

    async def stream_http(self, request: HttpRequest) -> AsyncIterator[Accepted | HttpHead | bytes]:
        """Answer one HTTP request: Accepted at once, an HttpHead, then the body's raw bytes as they are made.

        Raises EngineUnavailableError before the head when the engine is dead.
        """
        yield Accepted()
        responses = stream_asgi(
            self._backend.app,
            request,
            max_buffered_bytes=self._settings.max_buffered_bytes,
            abort_timeout_s=self._settings.abort_timeout_s,
        )
        try:
            head = await anext(responses)
            # vLLM answers a request that its dying engine loses with a bare 500; no byte is out: it can be retried.
            if isinstance(head, HttpHead) and head.status >= 500 and self._backend.is_dead():
                raise EngineUnavailableError("The engine died. A replacement is starting; retry.", None, 1)
            yield head
            async for chunk in responses:
                yield chunk
        finally:
            await responses.aclose()

    async def info(self) -> ModelInfo:
        return self._backend.info()

    async def stats(self) -> EngineStats:
        return self._backend.stats()

    async def check_health(self) -> None:
        """Called by Serve; raising three times in a row gets the replica replaced."""
        if self._backend.is_dead():
            raise EngineUnavailableError("the engine core is dead")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve; the policy in `autoscaling.py` reads these."""
        stats = self._backend.stats()
        return {
            "num_running": float(stats.num_running),
            "num_waiting": float(stats.num_waiting),
            "kv_cache_usage": stats.kv_cache_usage,
        }

    async def _exit_when_dead(self) -> None:
        """End this replica as soon as its engine is dead.

        Failing health checks would take seconds, in which this replica, since it answers at once, looks like the one
        with the shortest queue and is sent everything.
        """
        while not self._backend.is_dead():  # noqa: ASYNC110  (vLLM has no event for it)
            await asyncio.sleep(DEATH_POLL_S)
        logger.error("the engine of model %s is dead: replacing the replica", self._settings.name)
        await asyncio.sleep(LAST_WORDS_S)
        os._exit(1)

    async def __del__(self) -> None:
        self._watch.cancel()
        # Serve calls this once the replica's requests have ended.
        await asyncio.to_thread(self._backend.shutdown)
