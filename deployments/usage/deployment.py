"""The KeyUsage deployment: one replica, where ingress replicas exchange what each key has used."""

from ray import serve

from deployments.access_log import leave_out
from deployments.usage.counters import Board, Report


@serve.deployment
class KeyUsage:
    """Part of the graph only when a key has limits. Without it each ingress replica goes by its own counts."""

    def __init__(self, stale_after_s: float) -> None:
        leave_out()  # it is asked every second
        self._board = Board(stale_after_s)

    async def exchange(self, replica: str, report: Report) -> Report:
        return self._board.exchange(replica, report)
