"""All instances with what is known of them, and telling others when something changes. For one event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from config.auth import Key
from config.instances import InstanceSettings
from deployments.errors import InstanceNotFoundError
from deployments.instance_types import Instance, Report, Snapshot
from deployments.instances.activity import Board
from deployments.instances.decisions import Facts
from deployments.instances.live import Live, Why, to_instance
from deployments.instances.records import Record
from deployments.instances.store import Store


class Inventory:
    """Records as they are stored, each with its Live; and the snapshot that ingress replicas go by.

    `now_s` is any steady clock.
    """

    def __init__(self, store: Store, settings: InstanceSettings, now_s: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.now_s = now_s
        self.board = Board(settings.stale_after_s, now_s)
        self.records = {record.name: record for record in store.instances()}
        # What the applications are is not known yet: all that should run is run again, which changes none that does.
        self._lives = {
            name: Live(must_run=True, wanted_since_s=now_s(), last_request_s=time.time()) for name in self.records
        }
        self._store = store
        self._began_s = now_s()
        self._found = frozenset(self.records)
        self._keys: tuple[Key, ...] = ()
        # Ingress replicas compare it with what they had before this process began.
        self._snapshot = Snapshot(time.time_ns())
        self._changed = asyncio.Event()
        self.publish()

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    def find(self, name: str) -> Record:
        if name not in self.records:
            raise InstanceNotFoundError(f"There is no instance `{name[:128]}`.")
        return self.records[name]

    def live(self, name: str) -> Live:
        return self._lives[name]

    def lives_but(self, name: str) -> list[Live]:
        return [live for other, live in self._lives.items() if other != name]

    def is_anything_moving(self) -> bool:
        """Say whether an instance is on its way from one state to another."""
        return any(not self._is_calm(record, self._lives[name]) for name, record in self.records.items())

    def _is_calm(self, record: Record, live: Live) -> bool:
        if record.previous is not None or live.stopping is not None or live.task is not None:
            return False
        if record.wanted == "stopped":
            return live.app.state == "absent"
        return live.is_ready and not live.must_run and live.ready_since_s is not None

    def view(self, name: str) -> Instance:
        return to_instance(self.find(name), self.live(name))

    def add(self, record: Record) -> None:
        self._store.insert(record)
        self.records[record.name] = record
        self._lives[record.name] = Live()
        self.publish()

    def remove(self, name: str) -> None:
        self._store.remove(name)
        del self.records[name], self._lives[name]
        self.publish()

    def change(self, name: str, **fields: Any) -> None:
        """Store new values of a record's fields, then show them."""
        self.records[name] = self._store.change(name, **fields)
        self.publish()

    def want(self, name: str) -> None:
        """Have an instance run; what happened to it before is forgotten."""
        live = self.live(name)
        live.lack = live.refusal = None
        live.wanted_since_s, live.restart_at_s = self.now_s(), 0.0
        live.last_request_s = time.time()
        if live.stopping is not None:
            live.stopping = None if live.may_stay else "restart"
        self.change(name, wanted="running", failure="", num_restarts=0, last_request_s=live.last_request_s)

    def dismiss(self, name: str, why: Why, **fields: Any) -> None:
        """Have an instance's application ended once nobody uses it; `fields` of the record change with it."""
        live = self.live(name)
        live.stopping, live.restart_at_s = why, 0.0
        live.drain_until_s = self.now_s() + self.settings.drain_timeout_s
        wanted = "running" if why in ("restart", "crashed") and "failure" not in fields else "stopped"
        if wanted == "stopped":  # an update that is under way is not waited for
            fields |= {"previous": None, "previous_command": ""}
        self.change(name, wanted=wanted, last_request_s=self.last_request_s(name), **fields)
        live.drain_version = self._snapshot.version

    def learn(self, report: Report) -> Snapshot | None:
        """Take an ingress replica's report; returns the snapshot when it goes by another one."""
        self.board.learn(report)
        return None if report.seen == self._snapshot.version else self._snapshot

    def set_keys(self, keys: tuple[Key, ...]) -> None:
        self._keys = keys
        self.publish()

    def publish(self) -> None:
        """Show what has changed, if anything has, and wake whoever waits for it."""
        instances = tuple(self.view(name) for name in sorted(self.records))
        if (instances, self._keys) != (self._snapshot.instances, self._snapshot.keys):
            self._snapshot = Snapshot(self._snapshot.version + 1, instances, self._keys)
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait until something may have changed."""
        await self._changed.wait()

    def last_request_s(self, name: str) -> float:
        return max(self.live(name).last_request_s, self.board.last_request_s(name))

    def facts(self, name: str) -> Facts:
        live = self.live(name)
        # Just begun, it has not heard of all ingress replicas yet; they may be using what its predecessor ran.
        is_new = self.now_s() - self._began_s <= self.settings.stale_after_s
        has_heard = not is_new or (name not in self._found and bool(self.board.reports))
        return Facts(
            now_s=self.now_s(),
            in_flight=self.board.in_flight(name),
            unused_s=time.time() - self.last_request_s(name),
            is_out_of_reach=has_heard and self.board.have_seen(live.drain_version),
            has_room=self._has_room(name),
        )

    def _has_room(self, name: str) -> bool:
        """Say whether those that are still there leave room: an application that ends needs its memory until then."""
        there = [other for other in self.records if other != name and self.live(other).is_present]
        group = self.records[name].options.group
        if group is not None and any(self.records[other].options.group == group for other in there):
            return False
        limit = self.settings.max_running_instances
        return limit is None or len(there) < limit
