"""Which models there are: Serve's applications `model-*`, as they come and go."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ray.serve.context import _get_global_client

from config.models import MODEL_APP_PREFIX
from deployments.engine.client import DEPLOYMENT, EngineClient
from deployments.errors import EngineUnavailableError
from deployments.serve_details import Application, to_application
from deployments.types import ModelInfo

logger = logging.getLogger("ray.serve")

ModelStatus = Literal["running", "idle", "starting", "failed", "stopping"]


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
        applications = await read_applications()
        before = self._models or {}
        models = await asyncio.gather(*(self._model(name, one, before) for name, one in applications.items()))
        self._models = {model.name: model for model in models}
        for name, model in before.items():
            if name not in self._models or not self._models[name].is_callable:
                model.client.abandon()

    async def _model(self, app_name: str, application: Application, before: dict[str, Model]) -> Model:
        name = app_name.removeprefix(MODEL_APP_PREFIX)
        known = before.get(name)
        # In the event loop and kept: a handle belongs to the loop that makes it, and starts a router of its own.
        client = known.client if known else EngineClient(app_name)
        model = Model(name, to_status(application, known.status if known else "starting"), client)
        model = replace(model, message=application.message)
        is_through = application.status == "RUNNING"
        if known is not None:
            # Of an application that the YAML does not declare, Serve never changes the time: look after each rollout.
            model = replace(model, info=known.info, described_at_s=known.described_at_s if is_through else 0.0)
        deployed_at_s = application.last_deployed_time_s
        if model.status != "running" or (model.info is not None and model.described_at_s == deployed_at_s):
            return model
        info = await self._ask(model.client) or model.info
        # While an upgrade is under way an old replica may have answered: ask again until it is through.
        is_final = info is not None and is_through
        return replace(model, info=info, described_at_s=deployed_at_s if is_final else 0.0)

    async def _ask(self, client: EngineClient) -> ModelInfo | None:
        try:
            return await asyncio.wait_for(client.info(), timeout=self._interval_s)
        except Exception:
            return None


async def read_applications() -> dict[str, Application]:
    """Ask Serve's controller for the applications `model-*`, by name; raises whatever Ray and Serve raise."""
    client = await asyncio.to_thread(_get_global_client)
    details = await client._controller.get_serve_instance_details.remote()
    found = details["applications"].items()
    return {name: to_application(one) for name, one in found if name.startswith(MODEL_APP_PREFIX)}


def to_status(application: Application, before: ModelStatus = "starting") -> ModelStatus:
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
