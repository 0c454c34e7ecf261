"""Has constraints compiled by the pool, and loaded into the engine core, before requests that carry them begin."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import replace
from typing import Protocol

from config.guided import EngineGuidedSettings
from deployments.engine.shelf import Shelf
from deployments.errors import (
    CompilerUnavailableError,
    EngineUnavailableError,
    InvalidRequestError,
    OverloadedError,
    ServingError,
)
from deployments.guided.artifact import spec_key
from deployments.guided.flights import Flights
from deployments.guided.small import is_small
from deployments.guided_types import Compiled, EngineGrammars, GrammarSpec, Receipt, Refused, Verdict, Vocabulary

logger = logging.getLogger("ray.serve")

LOCAL = "engine"


class Compiler(Protocol):
    async def compile(self, spec: GrammarSpec, vocabulary: Vocabulary, timeout_s: float) -> Verdict:
        """Have a constraint compiled; raises EngineUnavailableError or OverloadedError."""

    async def find(self, key: str, timeout_s: float) -> Verdict | None:
        """Return what became of a constraint, if that is still known; raises EngineUnavailableError."""


class Core(Protocol):
    """The engine core's shelf."""

    async def load(self, key: str, artifact: bytes) -> None: ...
    async def drop(self, keys: Sequence[str]) -> None: ...
    async def counts(self) -> EngineGrammars: ...


class Guide:
    """One replica's. A constraint that is loaded costs its next request a digest of its text."""

    def __init__(
        self,
        compiler: Compiler,
        core: Core,
        vocabulary: Vocabulary,
        settings: EngineGuidedSettings,
        *,
        any_whitespace: bool = True,
    ) -> None:
        self.settings = settings
        self.any_whitespace = any_whitespace
        self._compiler = compiler
        self._core = core
        self._vocabulary = vocabulary
        self._shelf = Shelf(settings.store_bytes)
        self._flights: Flights[Receipt] = Flights()
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._pool_is_away_until_s = -math.inf

    def expect(self, spec: GrammarSpec) -> "Pending":
        """Begin to make a constraint ready. The caller must `leave` what it is given."""
        if not self.any_whitespace:
            spec = replace(spec, any_whitespace=False)
        key = spec_key(spec, self._vocabulary.fingerprint)
        receipt = self._shelf.get(key)
        self._shelf.pin(key)
        if receipt is not None:
            outcome = settled(receipt)
        else:
            outcome = asyncio.create_task(self._flights.run(key, lambda: self._make(key, spec)))
        return Pending(spec, outcome, lambda: self._shelf.unpin(key))

    async def find(self, key: str, kind: str) -> Receipt | None:
        """Say what is known of a constraint; raises InvalidRequestError when it was refused."""
        if receipt := self._shelf.get(key):
            return receipt
        try:
            verdict = await self._compiler.find(key, self.settings.timeout_s)
        except EngineUnavailableError as error:
            raise CompilerUnavailableError(error.message, None, 1) from error
        if isinstance(verdict, Refused):
            raise InvalidRequestError(verdict.message)
        return receipt_of(verdict, kind) if verdict else None

    async def counts(self) -> EngineGrammars:
        """Ask the engine core what it has done with constraints."""
        return await self._core.counts()

    async def _make(self, key: str, spec: GrammarSpec) -> Receipt:
        if not is_small(spec):
            return await self._from_pool(spec, self.settings.timeout_s)
        local = Receipt(key, spec.kind, LOCAL, 0.0, 0, is_cached=False)
        if time.monotonic() < self._pool_is_away_until_s:
            return local
        try:
            return await self._from_pool(spec, self.settings.small_timeout_s)
        except (CompilerUnavailableError, OverloadedError) as error:
            logger.warning("the engine compiles small constraints itself for a while: %s", error)
            self._pool_is_away_until_s = time.monotonic() + self.settings.pool_retry_s
            return local

    async def _from_pool(self, spec: GrammarSpec, timeout_s: float) -> Receipt:
        try:
            verdict = await self._compiler.compile(spec, self._vocabulary, timeout_s)
        except EngineUnavailableError as error:
            raise CompilerUnavailableError(error.message, None, 1) from error
        if isinstance(verdict, Refused):
            raise InvalidRequestError(verdict.message)
        receipt = receipt_of(verdict, spec.kind)
        loading = self._loading.get(verdict.key) or self._load(verdict, receipt)
        # Whoever leaves does not call it off: what the core has must be on the shelf.
        done, _ = await asyncio.wait({loading}, timeout=self.settings.timeout_s)
        if not done or loading.exception() is not None:
            raise CompilerUnavailableError("The compiled constraint could not be loaded; retry.", None, 1)
        return receipt

    def _load(self, compiled: Compiled, receipt: Receipt) -> "asyncio.Task[None]":
        gone = self._shelf.reserve(compiled.key, compiled.memory_bytes)
        work = self._deliver(compiled, replace(receipt, is_cached=True), gone)
        loading = self._loading[compiled.key] = asyncio.get_running_loop().create_task(work, context=Context())
        loading.add_done_callback(lambda _: self._loading.pop(compiled.key, None))
        return loading

    async def _deliver(self, compiled: Compiled, receipt: Receipt, gone: Sequence[str]) -> None:
        """Have the engine core drop what must go, and load the artifact."""
        try:
            if gone:
                await self._core.drop(gone)
            await self._core.load(compiled.key, compiled.artifact)
        except Exception:
            # Another version on the other node, or damaged on its way. Requests that need it fail, no others.
            logger.exception("the engine core cannot load the compiled constraint %s", compiled.key)
            self._shelf.remove(compiled.key)
            with contextlib.suppress(Exception):  # of several cores, one may have it
                await self._core.drop([compiled.key])
            raise
        self._shelf.arrived(compiled.key, receipt)


class Pending:
    """A constraint on its way, for one request. It stays in the engine core until the request leaves it."""

    def __init__(self, spec: GrammarSpec, outcome: "asyncio.Future[Receipt]", on_leave: Callable[[], None]) -> None:
        self.spec = spec
        self._outcome = outcome
        self._on_leave: Callable[[], None] | None = on_leave

    @property
    def is_ready(self) -> bool:
        return self._outcome.done()

    async def ready(self) -> Receipt:
        """Wait for it; raises InvalidRequestError when it is refused, CompilerUnavailableError, OverloadedError."""
        await asyncio.wait({self._outcome})  # not the task itself: who stops waiting must not cancel it for others
        return self._outcome.result()

    def leave(self) -> None:
        """Let go of it. When nobody else waits for it, its compilation ends."""
        if self._on_leave is None:
            return
        on_leave, self._on_leave = self._on_leave, None
        self._outcome.cancel()
        self._outcome.add_done_callback(_retrieved)
        on_leave()


def settled(outcome: Receipt | ServingError) -> "asyncio.Future[Receipt]":
    """Return a future that has its result, or its error, already."""
    future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    if isinstance(outcome, Receipt):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
    return future


def _retrieved(outcome: "asyncio.Future[Receipt]") -> None:
    # Else asyncio logs an error that nobody waited for.
    _ = outcome.cancelled() or outcome.exception()


def receipt_of(compiled: Compiled, kind: str) -> Receipt:
    return Receipt(
        compiled.key,
        kind,
        compiled.compiler,
        compiled.compile_s,
        len(compiled.artifact),
        compiled.is_cached,
        enforced=compiled.enforced,
        ignored=compiled.ignored,
    )
