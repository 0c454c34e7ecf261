"""The Engine deployment: one replica is one engine."""

import asyncio
import logging
from collections.abc import AsyncIterator

from ray import serve

from config.models import ModelSettings
from deployments.engine.asgi import stream_asgi
from deployments.engine.backend import make_backend
from deployments.errors import EngineUnavailableError
from deployments.types import Accepted, EngineStats, HttpHead, HttpRequest, ModelInfo

logger = logging.getLogger("ray.serve")


@serve.deployment
class Engine:
    """Serves one model's OpenAI routes to the ingress, as raw bytes over its handle."""

    async def __init__(self, settings: ModelSettings, device: str) -> None:  # type: ignore[misc]  # Serve awaits it
        self._settings = settings
        context = serve.get_replica_context()
        self._backend = make_backend(settings, device, context.rank.local_rank if context.rank else 0)
        try:
            await self._backend.start()
        except BaseException:
            self._backend.shutdown()
            raise
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

    async def __del__(self) -> None:
        # Serve calls this once the replica's requests have ended.
        await asyncio.to_thread(self._backend.shutdown)
