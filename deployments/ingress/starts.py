"""Starting instances for the requests that wait for them."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Protocol

from config.models import GatewaySettings
from deployments.errors import DeadlineExceededError
from deployments.ingress.services import Instances, Model, Models


class Directory(Models, Protocol):
    """The applications that there are."""

    async def refresh(self) -> None:
        """Look anew: what `models` returns then is no older than this call."""


@dataclass
class Start:
    """One start of an instance, and how many requests wait for it together."""

    task: "asyncio.Task[Model]"
    num_waiting: int = 0
    lease: contextlib.ExitStack | None = None
    """While it is held, the instance counts as in use: else it could be evicted before those who wait get to it."""

    def release(self) -> None:
        if self.lease is not None:
            self.lease.close()
        self.lease = None


class Starts:
    """The starts that are under way. An instance that is on its way out is not kept there by those who wait for it:
    the manager ends it, and starts it again, once nobody uses it."""

    def __init__(self, directory: Directory, instances: Instances, settings: GatewaySettings) -> None:
        self._directory = directory
        self._instances = instances
        self._settings = settings
        self._starts: dict[str, Start] = {}

    async def start(self, name: str) -> Model:
        """Have an instance started, and return its application; those who wait at the same time ask once.

        Raises what `Instances.ensure` raises.
        """
        start = self._starts.get(name)
        if start is None:
            start = self._starts[name] = Start(asyncio.create_task(self._start(name)))
        start.num_waiting += 1
        self._hold(name, start)
        try:
            return await asyncio.shield(start.task)
        finally:
            start.num_waiting -= 1
            if not start.num_waiting:
                start.task.cancel()
                start.release()
                del self._starts[name]

    def note_changes(self) -> None:
        """Look which instances are to go, after a new snapshot."""
        for name, start in self._starts.items():
            self._hold(name, start)

    async def _start(self, name: str) -> Model:
        timeout_s = self._settings.instances.on_demand_start_timeout_s
        give_up_s = asyncio.get_running_loop().time() + timeout_s
        while True:
            await self._instances.ensure(name)
            await self._directory.refresh()
            application = self._directory.models().get(name)
            if application is not None and application.is_callable:
                return application
            if asyncio.get_running_loop().time() >= give_up_s:
                text = f"The instance `{name}` could not be reached within {timeout_s:g} s (on_demand_start_timeout_s)."
                raise DeadlineExceededError(text, "model", self._settings.retry_after_s)
            await asyncio.sleep(self._settings.instances.poll_interval_s)

    def _hold(self, name: str, start: Start) -> None:
        status = next((one.status for one in self._instances.snapshot().instances if one.name == name), None)
        if status in ("shutting_down", "restarting"):
            start.release()
        elif start.lease is None:
            start.lease = contextlib.ExitStack()
            start.lease.enter_context(self._instances.using(name))
