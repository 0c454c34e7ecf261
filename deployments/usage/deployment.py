"""The KeyUsage deployment: one replica, where ingress replicas exchange what each key has used."""

from ray import serve

from deployments.usage.counters import Board, Report


@serve.deployment(logging_config={"enable_access_log": False})  # it is asked every second
class KeyUsage:
    """Part of the graph only when a key has limits. Without it each ingress replica goes by its own counts."""

    def __init__(self, stale_after_s: float) -> None:
        self._board = Board(stale_after_s)

    async def exchange(self, replica: str, report: Report) -> Report:
        return self._board.exchange(replica, report)
