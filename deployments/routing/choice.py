"""The choice of a replica: sessions, then known beginnings of prompts, then load. No Ray in here."""

import logging
import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from config.routing import RoutingSettings
from deployments.routing.prefixes import PrefixTable, to_prefix

logger = logging.getLogger("ray.serve")

HASH_BYTES = 16


class Chooser:
    """Ranks the replicas of one model for a request, and remembers the choice. Asks nobody and never waits."""

    def __init__(self, settings: RoutingSettings) -> None:
        self._settings = settings
        self._table = PrefixTable(settings.max_known_blocks, settings.max_replicas_per_block)
        self._has_failed = False

    def rank(self, loads: Mapping[str, float], body: bytes = b"", session: bytes = b"") -> list[str]:
        """Return all replicas, the chosen one first, the others by load.

        loads: requests of each replica; not empty. session: the client's `x-session-id`, b"" without one.
        Never raises for what is in a request: then the load alone decides.
        """
        try:
            chosen = self._choose(loads, body, session)
        except Exception:
            if not self._has_failed:  # once: it may be every request
                self._has_failed = True
                logger.exception("could not choose a replica by prompt or session: choosing by load, now and later")
            chosen = None
        others = sorted((replica for replica in loads if replica != chosen), key=loads.__getitem__)
        return others if chosen is None else [chosen, *others]

    def _choose(self, loads: Mapping[str, float], body: bytes, session: bytes) -> str | None:
        prefix = to_prefix(body, self._settings.block_bytes, self._settings.max_prefix_bytes)
        if session:
            chosen = self._by_session(loads, session)
        elif prefix is not None:
            known, holders = self._table.longest(prefix, loads.keys())
            known_bytes = known * self._settings.block_bytes
            chosen = self._of_holders(loads, holders, known_bytes, prefix.start(known + 1))
        else:
            return None
        if prefix is not None:
            self._table.learn(prefix, chosen)
        return chosen

    def _by_session(self, loads: Mapping[str, float], session: bytes) -> str:
        """Return the session's replica; the next one of its own order when that is much too busy."""
        bound = self._bound(loads, self._settings.session_imbalance_requests)
        return next(each for each in rendezvous(session, list(loads)) if loads[each] <= bound)

    def _of_holders(self, loads: Mapping[str, float], holders: Sequence[str], known_bytes: int, start: bytes) -> str:
        """Return one of the least busy holders; without one that has time, one of the least busy of all replicas.

        known_bytes: how much of the prompt the holders know. start: the prompt up to its first block that no replica
        knows; it decides among equals, in all gateways alike.
        """
        worth = known_bytes / self._settings.bytes_per_request
        bound = self._bound(loads, self._settings.imbalance_requests, worth)
        usable = [each for each in holders if loads[each] <= bound] or list(loads)
        near = min(loads[each] for each in usable) + self._settings.equal_within_requests
        return rendezvous(start, [each for each in usable if loads[each] <= near])[0]

    def _bound(self, loads: Mapping[str, float], extra: float, worth: float = math.inf) -> float:
        """Return the load above which a replica is too busy; never less than the least one."""
        least = min(loads.values())
        return least + min(worth, max(extra, least * (self._settings.imbalance_ratio - 1)))


def rendezvous(key: bytes, replicas: Sequence[str]) -> list[str]:
    """Order replicas by a hash of each with the key: the same in every process, and when one goes the others stay."""
    hashed = blake2b(key, digest_size=HASH_BYTES).digest()
    return sorted(replicas, key=lambda replica: blake2b(replica.encode(), key=hashed, digest_size=HASH_BYTES).digest())
