"""The Engine deployment: one replica is one engine."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator

from ray import serve

from config.models import ModelSettings
from deployments.access_log import keep_off_stderr
from deployments.analysis_types import Branches, BranchRequest, SampleRequest, Samples, ScoreRequest, TokenScores
from deployments.engine.asgi import Exchange, stream_asgi
from deployments.engine.backend import make_backend
from deployments.engine.client import DEPLOYMENT
from deployments.engine.constraints import Constraints, constrained
from deployments.engine.failures import died, refusal, restated
from deployments.engine.metering import Meter, metered
from deployments.engine.processes import kill_children
from deployments.engine.receipts import with_receipts
from deployments.engine.watchdog import Watchdog
from deployments.errors import EngineUnavailableError, InvalidRequestError, ServingError
from deployments.guided.client import GuidedClient
from deployments.guided_types import EngineGrammars
from deployments.loop_lag import watch_loop
from deployments.telemetry import LOOP_LAG_S
from deployments.types import Accepted, EngineStats, HttpHead, HttpRequest, ModelInfo, Usage

logger = logging.getLogger("ray.serve")

DEATH_POLL_S = 0.2
LAST_WORDS_S = 1.0
"""Time for the error frames of broken streams to leave before the process ends."""


class EngineReplica:
    """Serves one model's OpenAI routes to the ingress, as raw bytes over its handle."""

    async def __init__(self, settings: ModelSettings, device: str) -> None:  # type: ignore[misc]  # Serve awaits it
        keep_off_stderr()
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []  # Serve deletes also what could not be made
        self._exchanges: set[Exchange] = set()
        context = serve.get_replica_context()
        if context.app_name != settings.app_name:
            raise InvalidRequestError(f"the application must be called `{settings.app_name}`, not `{context.app_name}`")
        rank = context.rank.local_rank if context.rank else 0
        self._backend = make_backend(settings, device, rank, GuidedClient())
        try:
            await self._backend.start()
        except BaseException:
            self._backend.shutdown()
            raise
        self._watchdog = Watchdog(self._backend, settings.probe_interval_s, settings.hung_after_s)
        self._tasks += [
            asyncio.create_task(self._watchdog.watch()),
            asyncio.create_task(self._exit_when_lost()),
            asyncio.create_task(watch_loop(LOOP_LAG_S.make().set)),
        ]
        info = self._backend.info()
        logger.info("%s with %s is ready on %s, window %d", info.name, info.version, device, info.max_model_len)

    async def stream_http(self, request: HttpRequest) -> AsyncGenerator[Accepted | HttpHead | bytes | Usage, None]:
        """Answer one HTTP request: Accepted at once, an HttpHead, the body's raw bytes as they are made, then Usage.

        Raises EngineUnavailableError before the head when the engine is dead.
        """
        yield Accepted()
        meter, context = metered()
        constraints = constrained(context, request.guided)
        responses = stream_asgi(
            self._backend.app,
            request,
            max_buffered_bytes=self._settings.max_buffered_bytes,
            abort_timeout_s=self._settings.abort_timeout_s,
            context=context,
            among=self._exchanges,
        )
        try:
            try:
                head = await self._head(responses, meter, constraints)
            except EngineUnavailableError:
                raise
            except ServingError as error:
                for item in refusal(error):
                    yield item
                yield meter.end()
                return
            yield head
            async for chunk in responses:
                yield chunk
            yield meter.end()
        finally:
            constraints.leave()
            await responses.aclose()

    async def _head(
        self, responses: AsyncIterator[HttpHead | bytes], meter: Meter, constraints: Constraints
    ) -> HttpHead:
        """Return the head of a response whose constraints can be had; raises the ServingError to answer instead.

        vLLM begins streams before it looks at what constrains them.
        """
        head = await anext(responses)
        assert isinstance(head, HttpHead)
        try:
            receipts = await (constraints.ready() if head.status == 200 else constraints.known())
        except Exception as error:
            if self._backend.is_dead():
                raise died() from error
            raise
        if head.status in (500, 501):
            raise await self._failure(responses, meter)
        return with_receipts(head, receipts) if constraints.options.receipt else head

    async def _failure(self, responses: AsyncIterator[HttpHead | bytes], meter: Meter) -> ServingError:
        """Read vLLM's own 500 to its end, and say what a client is told instead."""
        # It answers so what its dying engine loses, too; no byte is out: that can be retried.
        if self._backend.is_dead():
            raise died()
        body = b"".join([chunk async for chunk in responses if isinstance(chunk, bytes)])
        error = restated(body, meter.has_reached_engine)
        logger.warning("the engine's application answered 500, the client is told %d: %r", error.status, body[:2000])
        return error

    async def probe(self) -> float:
        """Have the engine generate one token, return the seconds it took; raises EngineUnavailableError if it fails."""
        try:
            return await self._watchdog.probe(self._settings.probe_timeout_s)
        except TimeoutError:
            text = f"The engine generated no token within {self._settings.probe_timeout_s:g} s."
        except Exception as error:
            logger.warning("a probe failed: %r", error)
            text = "The engine cannot generate."
        raise EngineUnavailableError(text, None, 1)

    async def score(self, request: ScoreRequest) -> TokenScores:
        return await self._backend.score(request)

    async def branch(self, request: BranchRequest) -> Branches:
        return await self._backend.branch(request)

    async def sample(self, request: SampleRequest) -> Samples:
        return await self._backend.sample(request)

    async def info(self) -> ModelInfo:
        return self._backend.info()

    async def stats(self) -> EngineStats:
        return self._backend.stats()

    async def grammars(self) -> EngineGrammars | None:
        return await self._backend.grammars()

    async def check_health(self) -> None:
        """Called by Serve; raising three times in a row gets the replica replaced."""
        if lost := self._lost():
            raise EngineUnavailableError(f"the engine core {lost}")

    def _lost(self) -> str:
        """Say what is wrong with an engine that will not answer again, "" while it may."""
        if self._backend.is_dead():
            return "is dead"
        return "hangs" if self._watchdog.is_hung else ""

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve; the policy in `autoscaling.py` reads these."""
        stats = self._backend.stats()
        return {
            "num_running": float(stats.num_running),
            "num_waiting": float(stats.num_waiting),
            "kv_cache_usage": stats.kv_cache_usage,
        }

    async def record_routing_stats(self) -> dict[str, float]:
        """Called by Serve; the choice among replicas in `deployments/routing/` reads these."""
        stats = self._backend.stats()
        return {"num_running": float(stats.num_running), "num_waiting": float(stats.num_waiting)}

    async def _exit_when_lost(self) -> None:
        """End this replica as soon as its engine is dead or hangs.

        Failing health checks would take seconds, in which this replica, since it answers at once, looks like the one
        with the shortest queue and is sent everything.
        """
        while not self._lost():  # noqa: ASYNC110  (vLLM has no event for it)
            await asyncio.sleep(DEATH_POLL_S)
        logger.error("the engine of model %s %s: replacing the replica", self._settings.name, self._lost())
        for exchange in list(self._exchanges):
            exchange.fail(died())  # of an engine that hangs, nobody else would tell them
        await asyncio.sleep(LAST_WORDS_S)
        kill_children()
        logging.shutdown()  # what a handler still holds would be lost
        os._exit(1)

    async def __del__(self) -> None:
        for task in self._tasks:
            task.cancel()
        # Serve calls this once the replica's requests have ended.
        await asyncio.to_thread(self._backend.shutdown)


Engine = serve.deployment(EngineReplica, name=DEPLOYMENT)
