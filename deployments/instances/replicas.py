"""Which replicas of an instance have crashed."""

from dataclasses import dataclass, field
from typing import Literal

from deployments.serve_details import Deployment, Replica

RUNNING = "RUNNING"
ENDED = ("STOPPING", "STOPPED")
MAX_PAST = 3
"""Replicas of one application whose logs are still shown once they have ended."""
MAX_KNOWN = 1000
"""Replicas of one application that are remembered; Serve tells of those that are alive, and of the last ten dead."""


@dataclass(slots=True)
class Sighting:
    """A replica when it was last seen, and the version that was being deployed when it was first seen."""

    replica: Replica
    version: str


@dataclass(slots=True)
class History:
    """What was seen of one application's replicas from look to look, to tell crashes from what was wanted.

    A replica that ends is a crash unless it was one too many (Serve scales down), of another version than the one that
    is being rolled out, on a node that is drained, or of an application that is being deleted.
    """

    version: str = ""
    """What was deployed last; "": before anybody was looking."""
    num_crashes: int = 0
    """Since it was deployed."""
    is_new: bool = False
    """It was deployed while somebody was looking: whatever has ended before the first look has ended since."""
    alive: dict[str, Sighting] = field(default_factory=dict)
    past: dict[str, Replica] = field(default_factory=dict)
    """The last that have ended, or are being stopped, since it was deployed."""
    known: dict[str, None] = field(default_factory=dict)
    """All that were ever seen, as far as Serve may still tell of them."""

    def deploy(self, version: str, deployed: str | None) -> None:
        """Learn that a version is being deployed; `deployed` is the one that was before, None when there was none."""
        if deployed == version and not self.version:
            for sighting in self.alive.values():
                sighting.version = version
        if deployed != version:
            self.num_crashes = 0
            self.past.clear()
        self.is_new = self.is_new or deployed is None
        self.version = version

    def delete(self) -> None:
        """Learn that everything is being deleted: what ends now was wanted to, whatever is deployed next."""
        self.alive.clear()
        self.past.clear()
        self.num_crashes = 0
        self.version = ""

    def may_run(self, version: str) -> bool:
        """Say whether a replica of a version runs, or one of which nobody knows the version."""
        versions = {one.version for one in self.alive.values() if one.replica.state == RUNNING}
        return bool(versions & {version, ""})

    def progress(self) -> Literal["", "placed", "ready"]:
        """Say how far the first replica of what was deployed last has come."""
        current = [one.replica for one in self.alive.values() if one.version == self.version]
        if any(one.state == RUNNING for one in current):
            return "ready"
        return "placed" if any(one.node_id for one in current) else ""

    def is_rolled_out(self, target: int) -> bool:
        """Say whether only the version that was deployed last runs, in full; those before may still be stopping."""
        current = [one.version == self.version != "" and one.replica.state == RUNNING for one in self.alive.values()]
        return all(current) and len(current) == target

    def replicas(self) -> list[Replica]:
        """Return those that have ended since it was deployed, then those that are alive."""
        return [*self.past.values(), *(sighting.replica for sighting in self.alive.values())]

    def look(self, deployment: Deployment, is_failed: bool) -> None:
        """Compare with the last look. is_failed: Serve gave up this version, so those before must live on."""
        now = {one.id: one for one in deployment.replicas if self._is_alive(one)}
        gone = [sighting for name, sighting in self.alive.items() if name not in now]
        dead = {one.id: one for one in deployment.dead}
        missed = [one for one in dead.values() if one.id not in self.known]  # begun and ended between two looks
        if self.is_new or self.known:
            self._count(gone, len(missed), deployment.target, is_failed)
            self.past |= {one.id: one for one in [*(sighting.replica for sighting in gone), *missed]}
        self.past = {name: dead.get(name, one) for name, one in list(self.past.items())[-MAX_PAST:]}
        before = self.alive
        self.alive = {
            name: Sighting(one, before[name].version if name in before else self.version) for name, one in now.items()
        }
        self.known = dict(list((self.known | dict.fromkeys([*now, *dead])).items())[-MAX_KNOWN:])

    def _is_alive(self, replica: Replica) -> bool:
        # What was alive when everything was deleted may take a moment until Serve stops it.
        return replica.state not in ENDED and (replica.id in self.alive or replica.id not in self.known)

    def _count(self, gone: list[Sighting], num_missed: int, target: int, is_failed: bool) -> None:
        unwanted = [one for one in gone if one.replica.state != "PENDING_MIGRATION"]
        current = sum(1 for one in unwanted if one.version == self.version)
        surplus = sum(1 for one in self.alive.values() if one.version == self.version) - target
        self.num_crashes += num_missed + max(0, current - max(0, surplus))
        if is_failed:
            self.num_crashes += len(unwanted) - current
