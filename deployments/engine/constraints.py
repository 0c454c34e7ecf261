"""The constraints of one HTTP request: known before its response begins, whatever API it came by."""

from collections.abc import Awaitable
from contextvars import Context, ContextVar
from dataclasses import replace
from typing import Protocol

from deployments.guided_types import Receipt
from deployments.types import GuidedOptions


class Ticket(Protocol):
    """A constraint that is being made ready."""

    @property
    def is_ready(self) -> bool: ...

    def ready(self) -> Awaitable[Receipt]:
        """Wait until it is; raises ServingError when it cannot be had."""

    def leave(self) -> None:
        """Stop waiting for it; safe to call twice."""


class Constraints:
    """Those of the engine requests that belong to one HTTP request; with several prompts there are several."""

    def __init__(self, options: GuidedOptions) -> None:
        self.options = options
        self._tickets: list[Ticket] = []
        self._has_left = False

    def be_lenient(self) -> None:
        """Take keywords that nothing enforces for wishes: the client has not asked for `strict`."""
        self.options = replace(self.options, strict=False)

    def add(self, ticket: Ticket) -> None:
        """Add one; when the request has ended meanwhile, it is left at once."""
        self._tickets.append(ticket)
        if self._has_left:
            ticket.leave()

    async def ready(self) -> list[Receipt]:
        """Wait for all of them; raises the first one's ServingError."""
        return [await ticket.ready() for ticket in self._tickets]

    async def known(self) -> list[Receipt]:
        """Return those that are ready by now; raises as `ready` does."""
        return [await ticket.ready() for ticket in self._tickets if ticket.is_ready]

    def leave(self) -> None:
        """Let go of all of them, and of any that comes later."""
        self._has_left = True
        for ticket in self._tickets:
            ticket.leave()


_CONSTRAINTS: ContextVar[Constraints | None] = ContextVar("constraints", default=None)


def constrained(context: Context, options: GuidedOptions) -> Constraints:
    """Return an empty set that requests served in `context` add to."""
    constraints = Constraints(options)
    context.run(_CONSTRAINTS.set, constraints)
    return constraints


def current() -> Constraints | None:
    """Return the set of the HTTP request that is being served; None: there is none, as for the engine's own calls."""
    return _CONSTRAINTS.get()
