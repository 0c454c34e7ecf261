"""How much each key may use: 429 with `Retry-After` when it has had it, and headers that say what is left."""

import logging

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.auth import Key, KeyLimits
from deployments.errors import RateLimitedError
from deployments.ingress.middleware.errors import error_response
from deployments.ingress.middleware.key_ring import KeyRing
from deployments.usage.counters import Allowance, Ledger

logger = logging.getLogger("ray.serve")

NONE = KeyLimits()


class KeyLimiter:
    """Hold each key to its limits. Expects the key in `scope["state"]["key"]`.

    The tokens of a request count when it has ended: what the application left in `scope["state"]["tokens"]`. Header
    names are OpenAI's (https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers).
    """

    def __init__(self, app: ASGIApp, ring: KeyRing, ledger: Ledger) -> None:
        self.app = app
        self.ring = ring
        self.ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key: Key | None = scope["state"].get("key") if scope["type"] == "http" else None
        limits = self.ring.limits_of(key) if key is not None else NONE
        if key is None or limits == NONE:
            await self.app(scope, receive, send)
            return
        if refusal := self._refusal(key.name, limits):
            logger.info("key %s is refused: %s", key.name, refusal)
            headers = to_headers(self._allowances(key.name, limits))
            await error_response(scope["path"], refusal, headers)(scope, receive, send)
            return
        self.ledger.begin(key.name)
        left = to_headers(self._allowances(key.name, limits))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(left)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            self.ledger.end(key.name, scope["state"].get("tokens", 0))

    def _allowances(self, name: str, limits: KeyLimits) -> list[Allowance]:
        allowances = []
        if limits.requests_per_minute is not None:
            allowances.append(self.ledger.requests(name, limits.requests_per_minute))
        if limits.tokens_per_minute is not None:
            allowances.append(self.ledger.tokens(name, limits.tokens_per_minute))
        return allowances

    def _refusal(self, name: str, limits: KeyLimits) -> RateLimitedError | None:
        at_once = limits.concurrent_requests
        if at_once is not None and self.ledger.total(name).in_flight >= at_once:
            return RateLimitedError(f"This key may have {at_once} requests under way at once.", None, 1)
        for allowance in self._allowances(name, limits):
            if not allowance.remaining:
                text = f"This key may use {allowance.limit} {allowance.what} per minute."
                return RateLimitedError(f"{text} Retry in {allowance.reset_s} s.", None, allowance.reset_s)
        return None


def to_headers(allowances: list[Allowance]) -> dict[str, str]:
    return {
        f"x-ratelimit-{name}-{allowance.what}": value
        for allowance in allowances
        for name, value in (
            ("limit", str(allowance.limit)),
            ("remaining", str(allowance.remaining)),
            ("reset", f"{allowance.reset_s}s"),
        )
    }
