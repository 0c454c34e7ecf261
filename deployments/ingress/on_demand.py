"""Model instances as models: listed though they are stopped, started when a request names them, in use until it ends.

The manager ends an application once every ingress replica has acknowledged that it is to go, and none has requests for
it under way. So there may be no `await` between seeing that it may be sent to and counting it as in use.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from config.models import GatewaySettings
from deployments.errors import (
    AbandonedError,
    DeadlineExceededError,
    EngineUnavailableError,
    InstanceNotFoundError,
    InstanceNotRunningError,
    InstanceStoppingError,
    ServingError,
)
from deployments.ingress.routing import require_callable
from deployments.ingress.services import Forwarded, Instances, Model, Response, Upstream
from deployments.ingress.starts import Directory, Starts
from deployments.instance_types import Instance, Snapshot
from deployments.types import EngineStats, HttpHead, HttpRequest, ModelInfo, Usage

STATUS = {"stopped": "stopped", "failed": "failed", "restarting": "restarting", "shutting_down": "stopping"}
"""What a model's status is while its instance does not run."""

R = TypeVar("R", bound=Forwarded)
Check = Callable[[Model], None]
"""Raises what is wrong with a request to a model, as far as is known of the model."""


@dataclass(frozen=True)
class InstanceModel:
    """An instance as a model, whether it runs or not."""

    instance: Instance
    application: Model | None
    """None: it has none."""
    catalog: "Catalog" = field(repr=False)

    @property
    def name(self) -> str:
        return self.instance.name

    @property
    def status(self) -> str:
        if self.instance.status != "running":
            return STATUS[self.instance.status]
        return self.application.status if self.application is not None else "starting"

    @property
    def message(self) -> str:
        return self.instance.message

    @property
    def client(self) -> "InstanceEngine":
        return InstanceEngine(self.catalog, self.name, engine_of)

    @property
    def info(self) -> ModelInfo | None:
        return self.application.info if self.application is not None else None

    @property
    def is_callable(self) -> bool:
        """Say whether a request would be answered, if need be after a start.

        A load balancer that took the gateway for dead while all is stopped would never send what starts it.
        """
        is_startable = self.instance.on_demand_start and self.instance.status not in ("failed", "shutting_down")
        return is_startable or self.ready_application is not None

    @property
    def ready_application(self) -> Model | None:
        """What a request may be sent to at once; None: nothing."""
        if self.instance.status != "running" or self.application is None or not self.application.is_callable:
            return None
        return self.application

    @property
    def is_wanted(self) -> bool:
        """Say whether it runs, or is about to."""
        return self.instance.status in ("running", "restarting")


class Catalog:
    """All models: the applications that there are, and the instances that have none now. One per ingress replica.

    `renew` has the manager's snapshot taken anew, and may fail in silence.
    """

    def __init__(
        self,
        directory: Directory,
        instances: Instances,
        settings: GatewaySettings,
        renew: Callable[[], Awaitable[None]],
    ) -> None:
        self.instances = instances
        self.settings = settings
        self.starts = Starts(directory, instances, settings)
        self._directory = directory
        self._renew = renew
        self._renewal: asyncio.Future[None] | None = None
        self._snapshot = Snapshot(0)
        self._applications: Mapping[str, Model] = {}
        self._models: Mapping[str, Model] = {}

    def models(self) -> Mapping[str, Model]:
        """Return the models by name; raises EngineUnavailableError before the applications have been read once."""
        snapshot, applications = self.instances.snapshot(), self._directory.models()
        if snapshot is not self._snapshot or applications is not self._applications:
            own = (one for one in snapshot.instances if not one.is_declared)
            found = {one.name: InstanceModel(one, applications.get(one.name), self) for one in own}
            self._models = {**applications, **found}
            self._snapshot, self._applications = snapshot, applications
        return self._models

    def instance(self, name: str) -> InstanceModel:
        """Return an instance; raises InstanceNotFoundError when there is none any more."""
        model = self.models().get(name)
        if not isinstance(model, InstanceModel):
            raise InstanceNotFoundError(f"There is no instance `{name[:128]}`.", "model")
        return model

    async def renew(self) -> None:
        """See what was defined before this call, on whichever ingress replica; calls that come together ask once."""
        before = self._renewal
        if before is not None and not before.done():
            await asyncio.wait({before})  # it may have begun too early
        if self._renewal is before:
            self._renewal = asyncio.ensure_future(self._renew())
        assert self._renewal is not None
        await asyncio.wait({self._renewal})

    async def was_stopped(self, name: str) -> bool:
        """Say whether an instance was stopped on purpose. One that crashed was not: a request that kills its engine
        must not be sent to the next one."""
        try:
            return (await self.instances.get(name)).status in ("stopped", "shutting_down")
        except ServingError:
            return False


class OnDemand(Generic[R]):
    """Who answers one request to an instance: what `upstream` makes of its application, started first if need be.

    `check` is done when more is known of the model than was known of `checked`.
    """

    def __init__(
        self,
        catalog: Catalog,
        name: str,
        upstream: Callable[[Model], Upstream[R]],
        check: Check | None = None,
        checked: ModelInfo | None = None,
        may_start: bool = True,
    ) -> None:
        self._catalog = catalog
        self._name = name
        self._upstream = upstream
        self._check = check
        self._checked = checked
        self._may_start = may_start

    async def open(self, request: R) -> Response:
        """Send a request, and wait for its response's head; the instance is in use until that response is cancelled.

        An instance that is stopped for another one's sake before it answers is started again. Raises what `check` and
        `Instances.ensure` do, InstanceNotRunningError when it is not to be started.
        """
        has_been_abandoned = False
        give_up_s = now_s() + self._catalog.settings.instances.on_demand_start_timeout_s
        application = self._catalog.instance(self._name).ready_application
        while True:
            if application is None:
                application = await self._started(give_up_s)
            try:
                return await self._opened(application, request)
            except EngineUnavailableError as error:
                # One that kills its engine may end so, too: not again and again.
                is_lost = isinstance(error, AbandonedError) and not has_been_abandoned
                if now_s() >= give_up_s or not (is_lost or await self._catalog.was_stopped(self._name)):
                    raise
                has_been_abandoned = has_been_abandoned or is_lost
                application = None

    async def _started(self, give_up_s: float) -> Model:
        model = self._catalog.instance(self._name)
        if not (self._may_start and model.instance.on_demand_start):
            raise not_running(model, self._catalog.settings.retry_after_s)
        while True:
            try:
                return await self._catalog.starts.start(self._name)
            except DeadlineExceededError:
                if now_s() >= give_up_s:
                    raise
                # It was the deadline of others, who had waited for longer.

    async def _opened(self, application: Model, request: R) -> Response:
        if self._check is not None and application.info is not self._checked:
            self._check(application)
        with contextlib.ExitStack() as lease:
            lease.enter_context(self._catalog.instances.using(self._name))
            response = await self._upstream(application).open(request)
            self._check = None  # it holds the whole body, parsed
            return Held(response, lease.pop_all())


class InstanceEngine(OnDemand[HttpRequest]):
    """An instance's engine."""

    async def probe(self) -> float:
        """Have a replica generate one token, return the seconds it took; starts nothing."""
        return await self._running().client.probe()

    async def loads(self) -> tuple[EngineStats, ...]:
        """Return the load of each replica; starts nothing."""
        return await self._running().client.loads()

    def _running(self) -> Model:
        model = self._catalog.instance(self._name)
        if model.ready_application is None:
            raise not_running(model, self._catalog.settings.retry_after_s)
        return model.ready_application


class Held:
    """A response that keeps its instance in use until it is cancelled, which whoever reads it does in the end."""

    def __init__(self, response: Response, lease: contextlib.ExitStack) -> None:
        self._response = response
        self._lease = lease

    @property
    def head(self) -> HttpHead:
        return self._response.head

    @property
    def accepted_s(self) -> float:
        return self._response.accepted_s

    @property
    def usage(self) -> Usage | None:
        return self._response.usage

    def __aiter__(self) -> AsyncIterator[bytes]:
        return aiter(self._response)  # nothing of ours per chunk

    def cancel(self) -> None:
        with self._lease:
            self._response.cancel()


def engine_of(model: Model) -> Upstream[HttpRequest]:
    return model.client


def answering(
    model: Model,
    upstream: Callable[[Model], Upstream[R]],
    retry_after_s: int,
    check: Check | None = None,
    may_start: bool = True,
) -> Upstream[R]:
    """Return who answers one request to a model, once nothing speaks against it that is known now.

    Raises what `check` does, EngineUnavailableError when nobody will answer.
    """
    if not isinstance(model, InstanceModel):
        require_callable(model, retry_after_s)
    if check is not None:
        check(model)
    if isinstance(model, InstanceModel):
        return OnDemand(model.catalog, model.name, upstream, check, model.info, may_start)
    return upstream(model)


def not_running(model: InstanceModel, retry_after_s: int) -> EngineUnavailableError:
    """Say why an instance answers nothing now, to those who may not start it."""
    name, status = model.name, model.instance.status
    if status == "shutting_down":
        return InstanceStoppingError(f"The instance `{name}` is shutting down.", "model", retry_after_s)
    why = {"failed": "has failed", "restarting": "is restarting", "running": "is loading"}.get(status, "is stopped")
    return InstanceNotRunningError(
        f"The instance `{name}` {why}, and this request may not start it.", "model", retry_after_s
    )


def now_s() -> float:
    return asyncio.get_running_loop().time()
