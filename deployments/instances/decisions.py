"""What is to be done to an instance next: from what is wanted and what is seen, with no memory of its own."""

from dataclasses import dataclass
from typing import Literal

from config.instances import InstanceSettings
from deployments.instances.live import Live
from deployments.instances.records import Record

Step = Literal["run", "delete", "gone", "crashed", "failed", "late", "settle", "revert", "idle", "steady"]
"""run: deploy it. delete: end its application. gone: it has ended. crashed, failed, late: it ran and is lost; it did
not load; it does not get ready. settle, revert: an update is through; it failed, go back. idle: nobody uses it.
steady: it has run long enough to forget its crashes."""

SECONDS_PER_MINUTE = 60


@dataclass(frozen=True, slots=True)
class Facts:
    """What is seen of an instance from outside, at one moment."""

    now_s: float
    """Of the clock of Live."""
    in_flight: int
    unused_s: float
    """Since a request last named it, or it was started."""
    is_out_of_reach: bool
    """Ingress replicas send it nothing any more."""
    has_room: bool
    """It may run now as far as other instances are concerned."""


def next_step(record: Record, live: Live, facts: Facts, settings: InstanceSettings) -> Step | None:
    """Decide; None: wait."""
    if live.app.state == "absent":
        return _absent(record, live, facts, settings)
    if live.app.state == "deleting":
        return None
    if record.wanted == "stopped" or live.stopping is not None:
        return "delete" if _may_end(record, live, facts) else None
    if live.must_run:
        return "run"
    if record.previous is not None:
        return _updating(live, facts, settings)
    return _running(record, live, facts, settings)


def _absent(record: Record, live: Live, facts: Facts, settings: InstanceSettings) -> Step | None:
    if live.stopping is not None:
        return "gone"
    if record.wanted == "stopped" or facts.now_s < live.restart_at_s:
        return None
    if facts.has_room:
        return "run"
    return "late" if _is_late(live, facts, settings) else None


def _is_late(live: Live, facts: Facts, settings: InstanceSettings) -> bool:
    return facts.now_s - max(live.wanted_since_s, live.restart_at_s) > settings.start_timeout_s


def _may_end(record: Record, live: Live, facts: Facts) -> bool:
    if record.failure or live.stopping == "crashed" or facts.now_s >= live.drain_until_s:
        return True
    return facts.is_out_of_reach and not facts.in_flight


def _updating(live: Live, facts: Facts, settings: InstanceSettings) -> Step | None:
    if live.app.deploy_failed or live.app.state == "failed" or _is_late(live, facts, settings):
        return "revert"
    return "settle" if live.is_ready and not live.app.deploying else None


def _running(record: Record, live: Live, facts: Facts, settings: InstanceSettings) -> Step | None:
    if not live.is_ready:
        if live.ready_since_s is not None and not live.app.deploying:
            return "crashed"
        if live.app.state == "failed":
            return "failed"
        return "late" if _is_late(live, facts, settings) else None
    limit_s = record.options.idle_timeout * SECONDS_PER_MINUTE
    if limit_s and not facts.in_flight and facts.unused_s > limit_s:
        return "idle"
    has_lasted = live.ready_since_s is not None and facts.now_s - live.ready_since_s > settings.start_timeout_s
    return "steady" if record.num_restarts and has_lasted else None
