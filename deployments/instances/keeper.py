"""The loop that makes of each instance what is wanted: starts, ends, restarts, and notes what happened."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from deployments.errors import InsufficientResourcesError, InvalidOptionsError, NoRoomError, ServingError
from deployments.instances.decisions import Step, next_step
from deployments.instances.inventory import Inventory
from deployments.instances.live import Live
from deployments.instances.records import Record
from deployments.instances.room import evict_one
from deployments.instances.services import ABSENT, App, Apps, Journal

logger = logging.getLogger("ray.serve")


class Keeper:
    """The only one that runs and deletes applications: others change what is wanted, and `wake` it.

    Whatever it does can be cut off anywhere: the next process finds in the store what is wanted and does it.
    """

    def __init__(self, inventory: Inventory, apps: Apps, journal: Journal) -> None:
        self._inventory = inventory
        self._apps = apps
        self._journal = journal
        self._wake = asyncio.Event()
        self._steps: dict[Step, Callable[[Record, Live], Awaitable[None]]] = {
            "run": self._run,
            "delete": self._delete,
            "gone": self._gone,
            "crashed": self._crashed,
            "failed": self._failed,
            "late": self._late,
            "settle": self._settle,
            "revert": self._revert,
            "idle": self._idle,
            "steady": self._steady,
        }

    def wake(self) -> None:
        """Have it look at once."""
        self._wake.set()

    async def watch(self) -> None:
        """Work for ever; an error is logged, and all is tried again."""
        while True:
            try:
                await self.poll()
            except Exception:
                logger.exception("could not see to the instances; trying again")
            try:
                async with asyncio.timeout(self._patience_s()):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    def _patience_s(self) -> float | None:
        """Return when to look again: often only while something moves, since it costs the controller milliseconds."""
        if not self._inventory.records:
            return None
        settings = self._inventory.settings
        return settings.poll_interval_s if self._inventory.is_anything_moving() else settings.calm_interval_s

    async def poll(self) -> None:
        """Look once, and begin what is to be done."""
        asked_s = self._inventory.now_s()
        states = await self._apps.states()
        for name in list(self._inventory.records):
            live = self._inventory.live(name)
            app = states.get(name, ABSENT)
            if live.task is None and live.acted_s <= asked_s and not app.is_declared:
                self._see(self._inventory.records[name], live, app)
                self._begin(name, live)
        self._inventory.publish()

    def _see(self, record: Record, live: Live, app: App) -> None:
        live.app = app
        if record.wanted == "stopped" and live.stopping is None and app.state not in ("absent", "deleting"):
            # The process that was to end it has ended itself.
            live.stopping = "asked"
            live.drain_until_s = self._inventory.now_s() + self._inventory.settings.drain_timeout_s
            live.drain_version = self._inventory.snapshot.version
        if live.is_ready and live.ready_since_s is None and not live.must_run:
            live.ready_since_s = self._inventory.now_s()
            live.restart_at_s = 0.0

    def _begin(self, name: str, live: Live) -> None:
        record = self._inventory.records[name]
        step = next_step(record, live, self._inventory.facts(name), self._inventory.settings)
        if step is not None:
            live.task = asyncio.create_task(self._act(step, record, live))

    async def _act(self, step: Step, record: Record, live: Live) -> None:
        try:
            # Every change makes another record: what was decided before it no longer holds.
            if self._inventory.records.get(record.name) is record:
                await self._steps[step](record, live)
        except Exception:
            logger.exception("instance %s: %s has failed; trying again", record.name, step)
        else:
            if step != "run":  # one that lacks something is tried again later
                self.wake()
        finally:
            live.acted_s = self._inventory.now_s()
            live.task = None
            if record.name in self._inventory.records:
                self._inventory.publish()

    async def _run(self, record: Record, live: Live) -> None:
        refusal: ServingError | None = None
        try:
            await self._apps.run(record.name, record.options)
        except ServingError as error:
            refusal = error
        now = self._inventory.records.get(record.name)
        if now is None or now.wanted != "running" or now.options != record.options:
            live.must_run = True  # by now something else is wanted than what was run
        elif refusal is not None:
            self._refused(now, live, refusal)
        else:
            self._has_run(now, live)

    def _has_run(self, record: Record, live: Live) -> None:
        live.must_run, live.lack = False, None
        live.app = App("starting", deploying=True) if live.app.state == "absent" else live.app
        if record.previous is None:
            live.ready_since_s = None
        self._journal.note(record.name, f"deployed: {record.command or record.options.backend_type}")

    def _refused(self, record: Record, live: Live, error: ServingError) -> None:
        if record.previous is not None:
            self._go_back(record, live, error)
        elif live.is_ready:  # it runs all the same, so there is no hurry
            if live.lack is None:
                logger.warning("instance %s cannot be deployed anew: %s", record.name, error)
            live.lack = error
        elif isinstance(error, InvalidOptionsError | InsufficientResourcesError) or self._is_late(live):
            live.refusal = error
            self._fail(record, f"cannot be started: {error.message}")
        else:
            self._lacking(record, live, error)

    def _lacking(self, record: Record, live: Live, error: ServingError) -> None:
        """It cannot be run now, but perhaps soon: when there is no room, others that nobody uses make some."""
        if isinstance(error, NoRoomError) and evict_one(self._inventory, record.name):
            live.lack = None
            return
        if live.lack is None or live.lack.message != error.message:
            self._journal.note(record.name, f"cannot be started yet: {error.message}")
        live.lack = error

    def _is_late(self, live: Live) -> bool:
        return self._inventory.now_s() - live.wanted_since_s > self._inventory.settings.start_timeout_s

    async def _delete(self, record: Record, live: Live) -> None:
        live.stopping = live.stopping or "asked"
        await self._save_log(record.name)
        await self._apps.delete(record.name)
        live.app = App("deleting")
        self._journal.note(record.name, f"ending ({live.stopping})")

    async def _gone(self, record: Record, live: Live) -> None:
        live.stopping, live.ready_since_s, live.must_run = None, None, False
        live.wanted_since_s = self._inventory.now_s()
        self._journal.note(record.name, "ended")

    async def _crashed(self, record: Record, live: Live) -> None:
        """It was ready, and is no more, though nobody changed it."""
        policy = record.options
        why = live.app.message or "its replica was lost"
        if not policy.auto_restart or record.num_restarts >= policy.max_restarts:
            tried = f" after {record.num_restarts} restarts" if record.num_restarts else ""
            self._fail(record, f"crashed{tried}: {why}")
            return
        number = record.num_restarts + 1
        self._journal.note(record.name, f"crashed: {why}\nrestart {number} in {policy.restart_delay:g} s")
        self._inventory.dismiss(record.name, "crashed", num_restarts=number)
        live.restart_at_s = self._inventory.now_s() + policy.restart_delay

    async def _failed(self, record: Record, live: Live) -> None:
        """It did not load. Serve has tried as often as its options say; a restart after a crash counts as one more."""
        if record.num_restarts:
            await self._crashed(record, live)
        else:
            self._fail(record, f"failed to start: {live.app.message}")

    async def _late(self, record: Record, live: Live) -> None:
        self._fail(record, self._too_late(live))

    def _too_late(self, live: Live) -> str:
        limit = f"{self._inventory.settings.start_timeout_s:g} s (start_timeout_s)"
        why = live.lack.message if live.lack is not None else live.app.message
        return f"was not ready within {limit}: {why}"

    def _fail(self, record: Record, failure: str) -> None:
        self._journal.note(record.name, failure)
        self._inventory.dismiss(record.name, "crashed", failure=failure)

    async def _settle(self, record: Record, live: Live) -> None:
        self._inventory.change(record.name, previous=None, previous_command="")
        self._journal.note(record.name, "updated")

    async def _revert(self, record: Record, live: Live) -> None:
        await self._save_log(record.name)
        has_failed = live.app.deploy_failed or live.app.state == "failed"
        self._go_back(record, live, InvalidOptionsError(live.app.message if has_failed else self._too_late(live)))

    def _go_back(self, record: Record, live: Live, why: ServingError) -> None:
        """Return to what ran before an update that failed, unless something else has been decided meanwhile."""
        now = self._inventory.records[record.name]
        if now.previous is None:
            return
        self._journal.note(record.name, f"the update failed, going back: {why.message}")
        live.refusal, live.must_run, live.wanted_since_s = why, True, self._inventory.now_s()
        old = {"options": now.previous, "command": now.previous_command}
        self._inventory.change(record.name, **old, previous=None, previous_command="")

    async def _idle(self, record: Record, live: Live) -> None:
        self._journal.note(record.name, f"unused for {record.options.idle_timeout:g} minutes")
        self._inventory.dismiss(record.name, "idle")

    async def _steady(self, record: Record, live: Live) -> None:
        self._inventory.change(record.name, num_restarts=0)

    async def _save_log(self, name: str) -> None:
        """Keep what the replicas have written, while they are there."""
        try:
            if text := await self._apps.log(name):
                self._journal.note(name, text)
        except Exception:
            logger.exception("instance %s: its replicas' log is lost", name)
