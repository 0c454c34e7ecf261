"""The choice of a replica within Serve's handles: a RequestRouter, named in the Engine's `request_router_config`.

Serve pickles what stands in this module by value, so it holds no state and no type that others compare.
"""

import asyncio
import logging
import random
from collections.abc import MutableMapping
from typing import Any
from weakref import WeakKeyDictionary

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from config.routing import RoutingSettings
from deployments.routing.choice import Chooser
from deployments.routing.loads import Loads
from deployments.routing.prefixes import SESSION_HEADER
from deployments.types import HttpRequest

logger = logging.getLogger("ray.serve")

RUNNING, WAITING = "num_running", "num_waiting"
"""What `record_routing_stats` of a replica may say of its load."""


class ReplicaRouter(RequestRouter):  # type: ignore[misc]
    """Chooses by session, prompt and load for calls whose first argument is an HttpRequest, by load for all others.

    Nothing is asked of a replica for a choice. One that turns out to be full says so when it refuses the request, and
    Serve then asks for another choice.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._routed: MutableMapping[asyncio.Task[Any], PendingRequest] = WeakKeyDictionary()
        self._has_failed = False
        self.initialize_state()

    def initialize_state(self, **settings: Any) -> None:
        """Called by Serve with `request_router_kwargs`: RoutingSettings as plain values."""
        routing = RoutingSettings(**settings)
        self._chooser = Chooser(routing)
        self._loads = Loads(routing.choice_half_life_s)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        self._loads.keep({replica.replica_id.unique_id for replica in replicas})
        super().update_replicas(replicas)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return every candidate in a rank of its own, the chosen one first; any of them when something fails."""
        task = asyncio.current_task()
        if pending_request is not None and task is not None:
            self._routed[task] = pending_request
            pending_request.routing_context.should_backoff = True  # or Serve would try again without a pause
        try:
            return self._ranks(candidate_replicas, pending_request)
        except Exception:
            if not self._has_failed:  # once: it may be every request
                self._has_failed = True
                logger.exception("could not choose a replica: taking any, now and later")
            return [[replica] for replica in random.sample(candidate_replicas, len(candidate_replicas))]

    def _ranks(
        self, candidates: list[RunningReplica], pending_request: PendingRequest | None
    ) -> list[list[RunningReplica]]:
        by_name = {replica.replica_id.unique_id: replica for replica in random.sample(candidates, len(candidates))}
        free = {name: replica for name, replica in by_name.items() if not self._is_full(replica)} or by_name
        loads = {name: self._loads.of(name, self._reported(replica)) for name, replica in free.items()}
        request = pending_request.args[0] if pending_request is not None and pending_request.args else None
        if isinstance(request, HttpRequest):
            session = next((value for name, value in request.headers if name == SESSION_HEADER), b"")
            names = self._chooser.rank(loads, request.body, session)
        else:
            names = self._chooser.rank(loads)
        self._loads.choose(names[0])
        return [[by_name[name]] for name in [*names, *(by_name.keys() - free.keys())]]

    def _is_full(self, replica: RunningReplica) -> bool:
        queued = self.replica_queue_len_cache.get(replica.replica_id)
        return queued is not None and queued >= replica.max_ongoing_requests

    def _reported(self, replica: RunningReplica) -> float:
        """Return the requests that a replica has last said it has: taking a call, or in its reports."""
        queued = self.replica_queue_len_cache.get(replica.replica_id) or 0
        stats = replica.routing_stats or {}
        return max(float(queued), float(stats.get(RUNNING, 0)) + float(stats.get(WAITING, 0)))

    async def _select_from_candidate_replicas(
        self, candidates: list[RunningReplica], backoff_index: int
    ) -> RunningReplica | None:
        """Take the choice; Serve itself would first ask a replica whose queue it does not know."""
        (replica,) = candidates
        if self._is_full(replica):
            return await super()._select_from_candidate_replicas(candidates, backoff_index)
        return self.curr_replicas.get(replica.replica_id)

    def _fulfill_next_pending_request(self, replica: RunningReplica, request_metadata: Any = None) -> None:
        """Give a replica to the request that this task has chosen it for.

        Serve finds it by its internal request id. Calls that one HTTP request makes share that, and of two that wait at
        a time Serve forgets one.
        """
        task = asyncio.current_task()
        pending = self._routed.get(task) if task is not None else None
        if pending is None or pending.future.done():
            return
        self._record_queue_wait_time(pending)
        pending.future.set_result(replica)
        self._remove_pending_request_from_indices(pending)

    def on_send_request(self, replica_id: ReplicaID) -> None:
        super().on_send_request(replica_id)
        self._loads.send(replica_id.unique_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        super().on_request_completed(replica_id, internal_request_id)
        self._loads.end(replica_id.unique_id)
