"""Where the time of one request went: every moment of it belongs to the layer that its last token waited for.

The parts are measured one by one, here and in the engine's replica; what they leave over of the whole is `other`.
"""

import json
from time import monotonic

from starlette.types import Scope

from deployments.types import Usage

POLICY = "policy"
"""Request id, keys, limits: until a route has the request."""
READ = "read_and_parse"
"""Taking the body from the client, JSON, checks, finding the model."""
QUEUE = "queue"
"""Until a replica has it: the start of a model that was stopped, Serve's queue, the way there."""
UNSPLIT = "answer"
"""All the rest, when it comes from something that does not say where its own time went: the writing tools."""
SERIALISE = "detokenize_and_serialise"
FLUSH = "flush"
"""Getting the answer's end to the client, and waiting for a client that reads slowly."""
OTHER = "other"


class Budget:
    """One request's, begun when it is made. Times in seconds, of the event loop's clock."""

    __slots__ = ("_begun_s", "_last_s", "_parts", "model", "total_s")

    def __init__(self) -> None:
        self.model = ""
        """Which model it was that said 200, if one did."""
        self.total_s: float | None = None
        """None until the last byte is on its way."""
        self._parts: dict[str, float] = {}
        self._begun_s = self._last_s = monotonic()

    def mark(self, layer: str, at_s: float | None = None) -> None:
        """Give a layer what has passed since the last mark, or up to a moment after it."""
        now_s = monotonic() if at_s is None else at_s
        self._parts[layer] = self._parts.get(layer, 0.0) + now_s - self._last_s
        self._last_s = now_s

    def reached(self, model: str, accepted_s: float) -> None:
        """Note when whoever answers had the request."""
        self.model = model
        self.mark(QUEUE, accepted_s)

    def answered(self, usage: Usage | None, flowing_s: float = 0.0, blocked_s: float = 0.0) -> None:
        """Note the end of what answered, and what it says of itself.

        `flowing_s`: from the first chunk of a stream to its end; `blocked_s`: how much of it the client made us wait.
        """
        times = usage.times if usage is not None else None
        if times is None:
            self.mark(UNSPLIT)
            return
        self._last_s = monotonic()
        self._parts |= times.parts()
        # Where a client reads slowly, the engine's last chunks wait as the others have.
        waited_s = times.detokenize_and_serialise_s * (blocked_s / flowing_s if flowing_s > 0 else 0.0)
        self._parts[SERIALISE] -= waited_s
        self._parts[FLUSH] = waited_s

    def end(self) -> None:
        """Note that the last byte is on its way."""
        self.mark(FLUSH)
        self.total_s = self._last_s - self._begun_s

    def parts(self) -> dict[str, float]:
        """Return the seconds of each layer so far, in the order in which a request meets them."""
        return dict(self._parts)

    def report(self) -> bytes:
        """Write what is known now as JSON, in seconds; the parts and `other_s` add up to `total_s`."""
        now_s = monotonic()
        parts, total_s = self.parts(), now_s - self._begun_s
        parts[FLUSH] = parts.get(FLUSH, 0.0) + now_s - self._last_s
        parts[OTHER] = total_s - sum(parts.values())
        seconds = {"total_s": total_s} | {f"{layer}_s": value for layer, value in parts.items()}
        return json.dumps({name: round(value, 6) for name, value in seconds.items()}, separators=(",", ":")).encode()


def budget_of(scope: Scope) -> Budget:
    """Return a request's budget; it begins with the first call."""
    state = scope.setdefault("state", {})
    if "budget" not in state:
        state["budget"] = Budget()
    budget: Budget = state["budget"]
    return budget
