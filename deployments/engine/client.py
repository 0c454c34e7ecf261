"""Calling the engines of one model."""

import asyncio
import contextlib
import logging
from time import monotonic
from typing import Any

from ray.exceptions import TaskCancelledError
from ray.serve.handle import DeploymentHandle

from deployments.analysis_types import Branches, BranchRequest, SampleRequest, Samples, ScoreRequest, TokenScores
from deployments.errors import AbandonedError, EngineUnavailableError
from deployments.ray_errors import REPLICA_LOST, to_serving_error
from deployments.types import EngineStats, HttpHead, HttpRequest, ModelInfo, Usage

logger = logging.getLogger("ray.serve")

DEPLOYMENT = "Engine"


class EngineResponse:
    """A response that has begun: its head, raw body chunks by iteration, and what it cost once they have been read.

    Iterating raises a ServingError when the replica is lost half-way. Call `cancel` when leaving early: it aborts the
    request in the engine, and does nothing once the response has ended.
    """

    def __init__(self, head: HttpHead, items: Any, accepted_s: float) -> None:
        self.head = head
        self.accepted_s = accepted_s
        """When a replica had the request, seconds of the monotonic clock."""
        self.usage: Usage | None = None
        self._items = items

    def __aiter__(self) -> "EngineResponse":
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk: bytes | Usage = await self._items.__anext__()
            if isinstance(chunk, Usage):
                await self._end(chunk)
                raise StopAsyncIteration
        except StopAsyncIteration:
            raise
        except Exception as error:
            raise to_serving_error(error) from error
        return chunk

    async def _end(self, usage: Usage) -> None:
        self.usage = usage
        # Read on to the end, or `cancel` would cut off a call that is ending. The body is complete, whatever comes.
        with contextlib.suppress(Exception):
            await self._items.__anext__()

    def cancel(self) -> None:
        self._items.cancel()


class EngineClient:
    """Typed front of one application's Engine handle."""

    def __init__(self, app_name: str) -> None:
        # Not `serve.get_deployment_handle`: it asks the controller, which would stop the event loop and its streams.
        handle = DeploymentHandle(DEPLOYMENT, app_name)
        # `.options()` makes a new handle with its own state, so these are made once and kept.
        self._stream_http = handle.options(method_name="stream_http", stream=True)
        self._info = handle.options(method_name="info")
        self._stats = handle.options(method_name="stats")
        self._probe = handle.options(method_name="probe")
        self._score = handle.options(method_name="score")
        self._branch = handle.options(method_name="branch")
        self._sample = handle.options(method_name="sample")
        self._waiting: set[Any] = set()

    async def open(self, request: HttpRequest) -> EngineResponse:
        """Send a request and wait for its response's head.

        A replica that is lost, or finds its engine dead, before anything was sent is replaced by another, once. Raises
        OverloadedError when the queue is full, EngineUnavailableError when no replica can answer.
        """
        try:
            return await self._open(request)
        except AbandonedError:
            raise
        except (*REPLICA_LOST, EngineUnavailableError) as error:
            logger.warning("retrying a request on another replica: %r", error)
        except Exception as error:
            raise to_serving_error(error) from error
        try:
            return await self._open(request)
        except Exception as error:
            raise to_serving_error(error) from error

    async def _open(self, request: HttpRequest) -> EngineResponse:
        items: Any = self._stream_http.remote(request)
        try:
            await self._accepted(items)
            accepted_s = monotonic()
            return EngineResponse(await items.__anext__(), items, accepted_s)
        except BaseException:
            items.cancel()
            raise

    async def _accepted(self, items: Any) -> None:
        """Wait until a replica has the request; raises EngineUnavailableError when `abandon` comes first."""
        self._waiting.add(items)
        try:
            await items.__anext__()
        except (asyncio.CancelledError, TaskCancelledError):
            if items in self._waiting:
                raise
            raise AbandonedError("The model went away before a replica took the request.", "model", 1) from None
        finally:
            self._waiting.discard(items)

    def abandon(self) -> None:
        """Fail the requests that no replica has taken yet, for none will: Serve would let them wait for ever."""
        waiting, self._waiting = self._waiting, set()
        for items in waiting:
            items.cancel()

    async def probe(self) -> float:
        """Have a replica generate one token, return the seconds it took; raises ServingError when it does not."""
        try:
            took_s: float = await self._probe.remote()
        except Exception as error:
            raise to_serving_error(error) from error
        return took_s

    async def score(self, request: ScoreRequest) -> TokenScores:
        """Ask how likely each token of a prompt was. As `branch` and `sample`: raises ServingError, retries once when a
        replica is lost, aborts the request in the engine when it is cancelled."""
        scores: TokenScores = await self._ask(self._score, request)
        return scores

    async def branch(self, request: BranchRequest) -> Branches:
        """Ask which tokens may come next, and what would follow."""
        branches: Branches = await self._ask(self._branch, request)
        return branches

    async def sample(self, request: SampleRequest) -> Samples:
        """Ask for sampled continuations."""
        samples: Samples = await self._ask(self._sample, request)
        return samples

    async def _ask(self, method: Any, request: object) -> Any:
        try:
            return await self._answered(method.remote(request))
        except AbandonedError:
            raise
        except (*REPLICA_LOST, EngineUnavailableError) as error:
            logger.warning("asking another replica: %r", error)
        except Exception as error:
            raise to_serving_error(error) from error
        try:
            return await self._answered(method.remote(request))
        except Exception as error:
            raise to_serving_error(error) from error

    async def _answered(self, response: Any) -> Any:
        """Wait for a response; whoever is cancelled meanwhile cancels the call, too. `abandon` ends it as well."""
        self._waiting.add(response)
        try:
            return await response
        except (asyncio.CancelledError, TaskCancelledError):
            response.cancel()
            if response in self._waiting:
                raise
            raise AbandonedError("The model went away before it answered.", "model", 1) from None
        finally:
            self._waiting.discard(response)

    async def info(self) -> ModelInfo:
        try:
            info: ModelInfo = await self._info.remote()
        except Exception as error:
            raise to_serving_error(error) from error
        return info

    async def loads(self) -> tuple[EngineStats, ...]:
        """Ask every replica for its load."""
        try:
            return tuple(await self._stats.broadcast("stats").results_async())
        except Exception as error:
            raise to_serving_error(error) from error
