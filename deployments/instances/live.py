"""What is known of an instance besides its record: its application, and what is being done to it."""

import asyncio
from dataclasses import dataclass
from typing import Literal

from deployments.errors import ServingError
from deployments.instance_types import Instance, InstanceStatus
from deployments.instances.records import Record
from deployments.instances.services import ABSENT, App

Why = Literal["asked", "idle", "evicted", "restart", "crashed"]
"""Why an application is to go: its owner stops it, nobody uses it, another instance needs its room, ..."""


@dataclass
class Live:
    """One instance's. Times are of a steady clock, in seconds."""

    app: App = ABSENT
    stopping: Why | None = None
    """Set until the application is absent."""
    drain_version: int = 0
    """Ingress replicas that have seen this snapshot send nothing more to the application."""
    drain_until_s: float = 0.0
    must_run: bool = False
    """The application may not be what the record says."""
    wanted_since_s: float = 0.0
    ready_since_s: float | None = None
    """None: it has not been ready since it was run."""
    restart_at_s: float = 0.0
    lack: ServingError | None = None
    """Why it could not be run at the last attempt, though it may be later."""
    refusal: ServingError | None = None
    """Why the last start or update failed."""
    last_request_s: float = 0.0
    """Unix time."""
    task: "asyncio.Task[None] | None" = None
    """What is being done to it just now."""
    acted_s: float = 0.0
    """When that ended; what was seen of the application before says nothing any more."""

    @property
    def is_ready(self) -> bool:
        return self.app.state in ("running", "idle") and self.stopping is None

    @property
    def may_stay(self) -> bool:
        """Say whether its end, which has been decided, can still be called off without harm to another instance."""
        is_whole = self.app.state in ("running", "idle") and self.task is None and not self.must_run
        return self.stopping in ("asked", "idle") and is_whole

    @property
    def is_present(self) -> bool:
        """Say whether it takes up room, or is about to."""
        return self.app.state != "absent" or (self.task is not None and not self.task.done())


def status_of(record: Record, live: Live) -> InstanceStatus:
    if record.wanted == "running":
        is_back_soon = live.stopping is not None or live.restart_at_s > 0
        return "restarting" if is_back_soon else "running"
    if record.failure:
        return "failed"
    return "shutting_down" if live.is_present else "stopped"


def to_instance(record: Record, live: Live) -> Instance:
    """Write an instance as its owner sees it."""
    status = status_of(record, live)
    return Instance(
        id=record.id,
        name=record.name,
        status=status,
        ready=status == "running" and live.is_ready,
        created=record.created,
        options=record.options.model_dump(mode="json", exclude_unset=True),
        command=record.command,
        on_demand_start=record.options.on_demand_start,
        message=record.failure or (str(live.lack) if live.lack is not None else ""),
    )
