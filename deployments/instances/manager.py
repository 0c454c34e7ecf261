"""What owners and requests ask of instances: definitions are changed here, and what is wanted; the Keeper does it."""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from config.instances import InstanceOptions
from config.models import MODEL_NAME_PATTERN, is_model_name
from deployments.errors import (
    ConflictError,
    DeadlineExceededError,
    InstanceDeclaredError,
    InstanceExistsError,
    InstanceRunningError,
    InstanceStoppingError,
    InvalidNameError,
    InvalidOptionsError,
    MaxInstancesError,
    NoRoomError,
    StartFailedError,
)
from deployments.instance_types import Instance
from deployments.instances.definitions import checked_options, declared_instance
from deployments.instances.inventory import Inventory
from deployments.instances.keeper import Keeper
from deployments.instances.live import Live
from deployments.instances.records import Record
from deployments.instances.room import evict_one, make_room
from deployments.instances.services import ABSENT, Apps, Commands, Journal

RETRY_AFTER_S = 5
START_SEEN_S = 2.0
"""How long `start` waits to see an instance on its way, or why it cannot be."""
UPDATE_SEEN_S = 60.0
"""How much later than its deadline the end of an update is heard of at the latest."""


class Manager:
    """Every operation may be called again after a crash: what it has answered is stored."""

    def __init__(self, inventory: Inventory, keeper: Keeper, apps: Apps, commands: Commands, journal: Journal) -> None:
        self._inventory = inventory
        self._keeper = keeper
        self._apps = apps
        self._commands = commands
        self._journal = journal
        self._settings = inventory.settings

    async def list(self) -> tuple[Instance, ...]:
        """Return all instances, those of the YAML first."""
        return (*await self._declared(), *self._inventory.snapshot.instances)

    async def get(self, name: str) -> Instance:
        """Return one; raises InstanceNotFoundError."""
        if name in self._inventory.records:
            return self._inventory.view(name)
        for instance in await self._declared():
            if instance.name == name:
                return instance
        return self._inventory.view(name)

    async def create(self, name: str, options: Mapping[str, Any]) -> Instance:
        """Define an instance, stopped.

        Raises InvalidNameError, InvalidOptionsError, InstanceExistsError, MaxInstancesError.
        """
        if not is_model_name(name):
            raise InvalidNameError(f"`{name[:128]}` is no name of an instance: it must match {MODEL_NAME_PATTERN}")
        await self._require_new(name)
        new, command = await checked_options(name, options, self._apps, self._commands)
        await self._require_new(name)  # two may have come at once
        record = Record(uuid.uuid4().hex, name, int(time.time()), new, command)
        self._inventory.add(record)
        self._keeper.wake()
        self._journal.note(name, f"created: {command or new.backend_type}")
        return self._inventory.view(name)

    async def update(self, name: str, options: Mapping[str, Any]) -> Instance:
        """Define an instance anew; one that runs is replaced once its successor is ready, for which this waits.

        Raises InvalidOptionsError: then the old one serves on.
        """
        await self._own(name)
        new, command = await checked_options(name, options, self._apps, self._commands)
        record = self._inventory.find(name)
        if record.previous is not None:
            raise ConflictError(f"The instance `{name}` is being updated. Retry when it is through.")
        if record.wanted == "stopped":
            self._inventory.live(name).must_run = True  # should its end still be called off
            self._inventory.change(name, options=new, command=command, failure="", num_restarts=0)
        elif new != record.options:
            await self._replace(record, new, command)
        return self._inventory.view(name)

    async def start(self, name: str) -> Instance:
        """Have an instance run, and return once it is on its way. One that runs is left alone.

        Raises MaxInstancesError, InsufficientResourcesError, EngineUnavailableError: then it does not run.
        """
        record = await self._own(name)
        if record.wanted == "running":
            return self._inventory.view(name)
        make_room(self._inventory, name)
        live = self._inventory.live(name)
        self._want(name)
        await self._settled(lambda: self._is_under_way(live), START_SEEN_S)
        if live.refusal is not None:
            raise live.refusal
        if live.lack is not None:
            self._inventory.dismiss(name, "asked")
            raise live.lack
        return self._inventory.view(name)

    async def stop(self, name: str) -> Instance:
        """Have an instance ended once its requests have ended; returns at once."""
        record = await self._own(name)
        if record.wanted == "running" or record.failure:
            self._journal.note(name, "stop asked for")
            self._inventory.dismiss(name, "asked", failure="")
            self._keeper.wake()
        return self._inventory.view(name)

    async def restart(self, name: str) -> Instance:
        """Have an instance ended once its requests have ended, and started again; one that is stopped is started."""
        record = await self._own(name)
        if record.wanted == "stopped":
            return await self.start(name)
        make_room(self._inventory, name)
        self._inventory.dismiss(name, "restart", num_restarts=0)
        self._keeper.wake()
        return self._inventory.view(name)

    async def delete(self, name: str) -> None:
        """Forget an instance and its log; raises InstanceRunningError unless it is stopped."""
        await self._own(name)
        states = await self._apps.states()
        if self._inventory.find(name).wanted == "running" or self._inventory.live(name).is_present or name in states:
            raise InstanceRunningError(f"The instance `{name}` runs, or is not yet ended. Stop it first.")
        self._inventory.remove(name)
        self._journal.forget(name)

    async def log(self, name: str, lines: int | None) -> str:
        """Return the last lines of an instance's own log and of what its replicas write; None: all that is kept."""
        if name not in self._inventory.records:
            await self.get(name)
        text = self._journal.read(name) + await self._apps.log(name)
        return text if lines is None else "".join(text.splitlines(keepends=True)[-lines:])

    async def ensure(self, name: str) -> None:
        """Have an instance started because a request names it, and wait until it is ready.

        Raises InstanceStoppingError while its owner has it stopped, StartFailedError, DeadlineExceededError.
        """
        timeout_s = self._settings.on_demand_start_timeout_s
        begin_s = self._inventory.now_s()
        try:
            async with asyncio.timeout(timeout_s):
                while not self._is_ready(name):
                    self._demand(name, self._inventory.now_s() - begin_s > self._settings.eviction_patience_s)
                    await self._inventory.changed()
        except TimeoutError:
            text = f"The instance `{name}` was not ready within {timeout_s:g} s (on_demand_start_timeout_s)."
            lack = self._inventory.live(name).lack
            raise DeadlineExceededError(f"{text} {lack}" if lack else text, "model", RETRY_AFTER_S) from None

    def _is_ready(self, name: str) -> bool:
        self._inventory.find(name)
        live = self._inventory.live(name)
        return live.is_ready and not live.must_run

    def _demand(self, name: str, is_urgent: bool) -> None:
        """Start an instance if it can be started now; raises what no waiting helps against."""
        record, live = self._inventory.find(name), self._inventory.live(name)
        if live.stopping == "asked" and live.is_present:
            raise InstanceStoppingError(f"The instance `{name}` is shutting down.", "model", RETRY_AFTER_S)
        if record.failure:
            raise StartFailedError(f"The instance `{name}` {record.failure}", "model")
        if record.wanted == "running":
            self._press(name, live, is_urgent)
        elif (not live.is_present or live.may_stay) and self._has_made_room(name, is_urgent):
            self._journal.note(name, "a request starts it")
            self._want(name)

    def _press(self, name: str, live: Live, is_urgent: bool) -> None:
        """See to it that an instance that is to run finds room."""
        if live.lack is not None:
            if isinstance(live.lack, NoRoomError) and is_urgent and evict_one(self._inventory, name, is_urgent):
                live.lack = None
        elif live.app == ABSENT and live.task is None and not self._inventory.facts(name).has_room:
            self._has_made_room(name, is_urgent)

    def _has_made_room(self, name: str, is_urgent: bool) -> bool:
        try:
            make_room(self._inventory, name, is_urgent)
        except MaxInstancesError:
            return False
        return True

    def _want(self, name: str) -> None:
        self._inventory.want(name)
        self._keeper.wake()

    async def _replace(self, record: Record, new: InstanceOptions, command: str) -> None:
        live = self._inventory.live(record.name)
        live.refusal, live.must_run, live.wanted_since_s = None, True, self._inventory.now_s()
        changes = {"options": new, "command": command, "num_restarts": 0}
        before = {"previous": record.options, "previous_command": record.command}
        self._inventory.change(record.name, **changes, **before)
        self._keeper.wake()
        if not await self._settled(
            lambda: self._is_through(record.name), self._settings.start_timeout_s + UPDATE_SEEN_S
        ):
            raise ConflictError(f"The update of `{record.name}` is still under way.")
        if live.refusal is not None:
            raise InvalidOptionsError(f"The old options stay, for the new ones failed: {live.refusal.message}")

    def _is_through(self, name: str) -> bool:
        """Say whether an update has succeeded, failed, or been overtaken."""
        return name not in self._inventory.records or self._inventory.records[name].previous is None

    async def _settled(self, is_settled: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something is so, for so long at most; returns whether it is."""
        try:
            async with asyncio.timeout(timeout_s):
                while not is_settled():
                    await self._inventory.changed()
        except TimeoutError:
            return False
        return True

    def _is_under_way(self, live: Live) -> bool:
        if live.refusal is not None or live.lack is not None:
            return True
        return live.app != ABSENT and live.stopping is None

    async def _own(self, name: str) -> Record:
        """Return the record of an instance that may be changed."""
        if name not in self._inventory.records and name in await self._apps.declared():
            raise InstanceDeclaredError(f"`{name}` is declared in the YAML: change it there, and `serve deploy` it.")
        return self._inventory.find(name)

    async def _require_new(self, name: str) -> None:
        if name in self._inventory.records or name in await self._apps.declared():
            raise InstanceExistsError(f"There is an instance `{name}` already. Use PUT to change it.")
        if len(self._inventory.records) >= self._settings.max_instances:
            limit = self._settings.max_instances
            raise MaxInstancesError(f"{limit} instances are defined, as many as may (max_instances). Delete one.")

    async def _declared(self) -> tuple[Instance, ...]:
        declared, states = await asyncio.gather(self._apps.declared(), self._apps.states())
        found = [declared_instance(name, args, states.get(name, ABSENT)) for name, args in declared.items()]
        return tuple(sorted(found, key=lambda instance: instance.name))
