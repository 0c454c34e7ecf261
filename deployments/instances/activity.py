"""Who uses which instance, as ingress replicas report it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from deployments.instance_types import Activity, Report

NEVER = Activity(0, 0.0)


@dataclass
class Board:
    """The last report of each ingress replica. `now_s` is any steady clock."""

    stale_after_s: float
    now_s: Callable[[], float] = time.monotonic
    reports: dict[str, tuple[float, Report]] = field(default_factory=dict)

    def learn(self, report: Report) -> None:
        self.reports[report.replica] = (self.now_s(), report)
        for replica, (at_s, _) in list(self.reports.items()):
            if self.now_s() - at_s > self.stale_after_s:
                del self.reports[replica]

    def in_flight(self, name: str) -> int:
        """Count requests that name an instance and are under way."""
        return sum(activity.in_flight for activity in self._activity(name))

    def last_request_s(self, name: str) -> float:
        """Return when a request last named an instance, Unix time; 0 when none has."""
        return max((activity.last_request_s for activity in self._activity(name)), default=0.0)

    def have_seen(self, version: int) -> bool:
        """Say whether every ingress replica goes by this version or a later one."""
        return all(report.seen >= version for report in self._fresh())

    def _activity(self, name: str) -> list[Activity]:
        activities: list[Mapping[str, Activity]] = [report.activity for report in self._fresh()]
        return [activity.get(name, NEVER) for activity in activities]

    def _fresh(self) -> list[Report]:
        now_s = self.now_s()
        return [report for at_s, report in self.reports.values() if now_s - at_s <= self.stale_after_s]
