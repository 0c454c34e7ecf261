"""What the manager of instances works on, in memory: applications that do as they are told."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from config.instances import InstanceOptions, InstanceSettings
from deployments.errors import InvalidOptionsError, ServingError
from deployments.instance_types import Activity, ParsedCommand, Report
from deployments.instances.applications import to_model_settings
from deployments.instances.inventory import Inventory
from deployments.instances.keeper import Keeper
from deployments.instances.manager import Manager
from deployments.instances.services import App
from deployments.instances.store import Store

FAKE = {"backend_type": "fake"}


@dataclass
class MemoryApps:
    """Applications get ready at once, unless they are held, and end at once."""

    apps: dict[str, App] = field(default_factory=dict)
    options: dict[str, InstanceOptions] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    declared_models: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    is_held: bool = False
    """What is run stays in the state `starting`, and what is deleted in `deleting`."""
    ends_slowly: bool = False
    """What is deleted stays in `deleting`."""
    bad: set[int] = field(default_factory=set)
    """Seeds with which the fake engine does not start."""
    refusals: list[ServingError] = field(default_factory=list)
    """What the next calls of `run` raise."""

    async def check(self, name: str, options: InstanceOptions) -> None:
        to_model_settings(name, options, InstanceSettings())

    async def run(self, name: str, options: InstanceOptions) -> None:
        self.runs.append(name)
        await turns()
        if self.refusals:
            raise self.refusals.pop(0)
        if self.options.get(name) == options and name in self.apps:
            return
        before = self.apps.get(name)
        self.options[name] = options
        is_bad = options.backend_options.get("seed") in self.bad
        if before is not None and before.state == "running":
            self.apps[name] = replace(before, deploying=self.is_held and not is_bad, deploy_failed=is_bad, message="no")
        elif before is not None and before.state == "starting":
            self.apps[name] = before
        elif is_bad:
            self.apps[name] = App("failed", "Traceback: no such model", deploy_failed=True)
        else:
            self.apps[name] = App("starting" if self.is_held else "running", deploying=self.is_held)

    async def delete(self, name: str) -> None:
        await turns()
        if self.is_held or self.ends_slowly:
            self.apps[name] = App("deleting")
        else:
            self.apps.pop(name, None)

    async def states(self) -> Mapping[str, App]:
        return dict(self.apps)

    async def declared(self) -> Mapping[str, Mapping[str, Any]]:
        return self.declared_models

    async def log(self, name: str) -> str:
        await turns()
        return f"replica of {name}\n" if name in self.apps else ""


async def turns() -> None:
    """Take a while, in which others do something."""
    for _ in range(3):
        await asyncio.sleep(0)


class MemoryJournal:
    def __init__(self) -> None:
        self.notes: dict[str, list[str]] = defaultdict(list)

    def note(self, name: str, text: str) -> None:
        self.notes[name].append(text + "\n")

    def read(self, name: str) -> str:
        return "".join(self.notes[name])

    def forget(self, name: str) -> None:
        self.notes.pop(name, None)


class PlainCommands:
    """Knows one option."""

    async def parse(self, command: str) -> ParsedCommand:
        return ParsedCommand({"model": command.split()[-1]})

    async def command_of(self, backend_options: Mapping[str, Any]) -> str:
        if "model" not in backend_options:
            raise InvalidOptionsError("`model` is required")
        return f"vllm serve {backend_options['model']}"

    async def version(self) -> str:
        return "0"


class Bench:
    """A manager on memory and a real store, polled by hand. Another Bench on the same folder is its successor."""

    def __init__(self, folder: Path, apps: MemoryApps | None = None, **settings: Any) -> None:
        self.clock_s = 1000.0
        self.apps = apps or MemoryApps()
        self.journal = MemoryJournal()
        self.store = Store(folder / "instances.sqlite")
        quick = {"poll_interval_s": 0.05, "eviction_patience_s": 0, "on_demand_start_timeout_s": 20, "stale_after_s": 1}
        self.inventory = Inventory(self.store, InstanceSettings.model_validate(quick | settings), lambda: self.clock_s)
        self.keeper = Keeper(self.inventory, self.apps, self.journal)
        self.manager = Manager(self.inventory, self.keeper, self.apps, PlainCommands(), self.journal)
        self.in_flight: dict[str, int] = {}

    def report(self) -> None:
        """Say, as an ingress replica that has seen all, what is in use."""
        seen = self.inventory.snapshot.version
        activity = {name: Activity(count, 0.0) for name, count in self.in_flight.items()}
        self.inventory.learn(Report("ingress", seen, activity))

    async def look(self) -> None:
        """Have the keeper look once; what it begins goes on beside what follows."""
        await turns()
        self.report()
        self.clock_s += 0.1
        await self.keeper.poll()

    async def step(self) -> None:
        """Have the keeper look once, and wait for what it does."""
        await self.look()
        for name in list(self.inventory.records):
            task = self.inventory.live(name).task
            if task is not None:
                await task
        self.clock_s += 0.1

    async def settle(self, name: str, status: str, ready: bool | None = None) -> None:
        """Step until an instance is so."""
        for _ in range(100):
            await self.step()
            view = self.inventory.view(name)
            if view.status == status and ready in (None, view.ready):
                return
        raise AssertionError(f"{name} is {view.status}, ready {view.ready}")

    def close(self) -> None:
        self.store.close()
