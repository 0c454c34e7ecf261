"""What an ingress replica tells Prometheus of its requests."""

from deployments import telemetry
from deployments.ingress.budget import OTHER, Budget


class Metrics:
    """A Recorder. Made in a replica, or its metrics would not carry the replica's name."""

    def __init__(self) -> None:
        self._requests = telemetry.REQUESTS.make()
        self._total_s = telemetry.REQUEST_S.make()
        self._layer_s = telemetry.REQUEST_LAYER_S.make()

    def count(self, route: str, model: str, status: int, error: str) -> None:
        self._requests.inc(tags={"route": route, "model": model, "status": str(status), "error": error})

    def record(self, budget: Budget) -> None:
        """Observe a request that was answered to the end. What took no time was not done: it is left out."""
        assert budget.total_s is not None
        self._total_s.observe(budget.total_s, {"model": budget.model})
        parts = budget.parts()
        parts[OTHER] = max(0.0, budget.total_s - sum(parts.values()))
        for layer, seconds in parts.items():
            if seconds > 0:
                self._layer_s.observe(seconds, {"model": budget.model, "layer": layer})
