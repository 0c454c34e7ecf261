"""Calling engines: which models exist, which are ready, and one request to one of them."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from ray import serve
from ray.exceptions import TaskCancelledError
from ray.serve.handle import DeploymentHandle

from config.models import MODEL_APP_PREFIX
from deployments.analysis_types import Branches, BranchRequest, SampleRequest, Samples, ScoreRequest, TokenScores
from deployments.errors import EngineUnavailableError
from deployments.ray_errors import REPLICA_LOST, to_serving_error
from deployments.types import HttpHead, HttpRequest, ModelInfo, Usage

logger = logging.getLogger("ray.serve")

DEPLOYMENT = "Engine"
ModelStatus = Literal["running", "idle", "starting", "failed", "stopping"]


class AbandonedError(EngineUnavailableError):
    """The model went away while a request waited for one of its replicas."""


class EngineResponse:
    """A response that has begun: its head, raw body chunks by iteration, and what it cost once they have been read.

    Iterating raises a ServingError when the replica is lost half-way. Call `cancel` when leaving early: it aborts the
    request in the engine, and does nothing once the response has ended.
    """

    def __init__(self, head: HttpHead, items: Any) -> None:
        self.head = head
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
            return EngineResponse(await items.__anext__(), items)
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


@dataclass(frozen=True)
class Model:
    """One model of the cluster, as the gateway sees it."""

    name: str
    status: ModelStatus
    """`idle` is scaled to zero, or on its way back: a request starts a replica and waits for it."""
    client: EngineClient
    info: ModelInfo | None = None
    """None until a replica has been ready once."""
    message: str = ""
    """Serve's words when the model is not running."""
    described_at_s: float = 0.0
    """Time of the deployment that `info` describes, Unix seconds."""

    @property
    def is_callable(self) -> bool:
        return self.status in ("running", "idle")


class ModelDirectory:
    """Finds the applications `model-*` as they come and go. One per ingress replica; read-only for everybody else."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._models: dict[str, Model] | None = None
        self._looking = asyncio.Lock()
        self._num_asked = self._num_answered = 0

    def models(self) -> dict[str, Model]:
        """Return the models by name; raises EngineUnavailableError before they have been read once."""
        if self._models is None:
            raise EngineUnavailableError("The gateway is starting. Retry.", None, 1)
        return self._models

    async def watch(self, then: Callable[[], None] | None = None) -> None:
        """Refresh for ever, and call `then` each time; one that fails is logged and keeps what was known."""
        while True:
            try:
                await self.refresh()
                if then is not None:
                    then()
            except Exception:
                logger.exception("could not read the state of Serve's applications; keeping the last one")
            await asyncio.sleep(self._interval_s)

    async def refresh(self) -> None:
        """Look anew: what `models` returns then is no older than this call. Calls that come together look once."""
        self._num_asked += 1
        number = self._num_asked
        # One look at a time: of two that overlap, the earlier one may end last, and drop the clients of the later one.
        async with self._looking:
            if self._num_answered >= number:
                return
            upto = self._num_asked
            await self._look()
            self._num_answered = upto

    async def _look(self) -> None:
        applications = (await asyncio.to_thread(serve.status)).applications
        names = [name for name in applications if name.startswith(MODEL_APP_PREFIX)]
        before = self._models or {}
        models = await asyncio.gather(*(self._model(name, applications[name], before) for name in names))
        self._models = {model.name: model for model in models}
        for name, model in before.items():
            if name not in self._models or not self._models[name].is_callable:
                model.client.abandon()

    async def _model(self, app_name: str, application: Any, before: dict[str, Model]) -> Model:
        name = app_name.removeprefix(MODEL_APP_PREFIX)
        known = before.get(name)
        # In the event loop and kept: a handle belongs to the loop that makes it, and starts a router of its own.
        client = known.client if known else EngineClient(app_name)
        model = Model(name, to_status(application, known.status if known else "starting"), client)
        model = replace(model, message=application.message)
        if known is not None:
            model = replace(model, info=known.info, described_at_s=known.described_at_s)
        deployed_at_s = application.last_deployed_time_s
        if model.status != "running" or (model.info is not None and model.described_at_s == deployed_at_s):
            return model
        info = await self._ask(model.client) or model.info
        # While an upgrade is under way an old replica may have answered: ask again until it is through.
        is_final = info is not None and application.status == "RUNNING"
        return replace(model, info=info, described_at_s=deployed_at_s if is_final else 0.0)

    async def _ask(self, client: EngineClient) -> ModelInfo | None:
        try:
            return await asyncio.wait_for(client.info(), timeout=self._interval_s)
        except Exception:
            return None


def to_status(application: Any, before: ModelStatus = "starting") -> ModelStatus:
    """Read a model's status from Serve's overview of its application; `before` is its status at the last look."""
    if application.status == "DELETING":
        return "stopping"
    engine = application.deployments.get(DEPLOYMENT)
    if engine is None:
        # While Serve builds an application, or builds it anew, it shows no deployments, though those of before run on.
        return "failed" if application.status == "DEPLOY_FAILED" else before
    if engine.replica_states.get("RUNNING", 0) > 0:
        return "running"
    if application.status == "DEPLOY_FAILED":
        return "failed"
    if application.status == "RUNNING" and engine.status in ("HEALTHY", "UPSCALING"):
        return "idle"
    return "starting"
