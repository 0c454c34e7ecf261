"""What the Instances deployment tells Prometheus: the states of instances, how starts go, and what ends them."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, Protocol, get_args

from deployments import telemetry
from deployments.instance_types import InstanceStatus
from deployments.instances.inventory import Inventory
from deployments.instances.live import Why, status_of

State = Literal["starting"] | InstanceStatus
"""`running` is one that is ready."""
Outcome = Literal["ready", "failed", "given_up"]

STATES: tuple[State, ...] = ("starting", *get_args(InstanceStatus))


class Recorder(Protocol):
    def holds(self, counts: Mapping[State, int]) -> None:
        """Take how many instances are in each state."""

    def started(self, model: str, outcome: Outcome, took_s: float) -> None: ...
    def ended(self, model: str, why: Why) -> None: ...


class Metrics:
    """A Recorder. Made in a replica, or its metrics would not carry the replica's name."""

    def __init__(self) -> None:
        self._instances = telemetry.INSTANCES.make()
        self._starts = telemetry.INSTANCE_STARTS.make()
        self._start_s = telemetry.INSTANCE_START_S.make()
        self._ends = telemetry.INSTANCE_ENDS.make()

    def holds(self, counts: Mapping[State, int]) -> None:
        for state, count in counts.items():
            self._instances.set(count, tags={"state": state})

    def started(self, model: str, outcome: Outcome, took_s: float) -> None:
        self._starts.inc(tags={"model": model, "outcome": outcome})
        if outcome == "ready":
            self._start_s.observe(took_s, tags={"model": model})

    def ended(self, model: str, why: Why) -> None:
        self._ends.inc(tags={"model": model, "why": why})


class Observer:
    """Compares what the instances are with what they were at the last look. `now_s` is any steady clock.

    Those that a process finds when it begins are no starts: they may have been ready all the time.
    """

    def __init__(self, inventory: Inventory, recorder: Recorder, now_s: Callable[[], float] = time.monotonic) -> None:
        self._inventory = inventory
        self._recorder = recorder
        self._now_s = now_s
        self._states: dict[str, State] = {name: self._state(name) for name in inventory.records}
        self._since_s: dict[str, float] = {}
        self._leaving: set[str] = set()
        self._counts: dict[State, int] = {}

    async def watch(self) -> None:
        """Look for ever, whenever something may have changed."""
        while True:
            self.look()
            await self._inventory.changed()

    def look(self) -> None:
        states = {name: self._state(name) for name in self._inventory.records}
        for name, state in states.items():
            self._see_start(name, self._states.get(name, "stopped"), state)
            self._see_end(name)
        self._states = states
        self._leaving &= self._states.keys()
        counts = Counter(self._states.values())
        if (now := {state: counts[state] for state in STATES}) != self._counts:
            self._recorder.holds(now)
            self._counts = now

    def _state(self, name: str) -> State:
        live = self._inventory.live(name)
        status = status_of(self._inventory.records[name], live)
        return "starting" if status == "running" and not live.is_ready else status

    def _see_start(self, name: str, before: State, now: State) -> None:
        if now == before:
            return
        if now == "starting" and before != "running":
            self._since_s[name] = self._now_s()
        elif (since_s := self._since_s.pop(name, None)) is not None:
            self._recorder.started(name, self._outcome(name, now), self._now_s() - since_s)

    def _outcome(self, name: str, now: State) -> Outcome:
        if now == "running":
            return "ready"
        return "failed" if now == "failed" or self._inventory.live(name).stopping == "crashed" else "given_up"

    def _see_end(self, name: str) -> None:
        why = self._inventory.live(name).stopping
        if why is None:
            self._leaving.discard(name)
        elif name not in self._leaving:
            self._leaving.add(name)
            self._recorder.ended(name, why)
