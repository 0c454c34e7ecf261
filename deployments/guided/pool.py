"""Ray actors that compile constraints, one each at a time: waiting for one, and replacing those that are lost."""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayError

from config.guided import GuidedSettings
from deployments.errors import EngineUnavailableError, OverloadedError
from deployments.guided.forge import Forge, VocabularyError
from deployments.guided.link import CompilerCrashedError
from deployments.guided_types import GrammarSpec, Verdict, Vocabulary, VocabularyUnknown

logger = logging.getLogger("ray.serve")

RETRY_AFTER_S = 1
START_TIMEOUT_S = 60.0
START_AGAIN_AFTER_S = 1.0
ANSWERS_WITHIN_S = 5.0
"""How much longer than its work an actor's answer may take; an actor that takes longer hangs, and is replaced."""

LOST = (RayActorError, CompilerCrashedError, TimeoutError)
"""Errors after which another actor may succeed."""

T = TypeVar("T")


class CompileActor:
    """What runs in an actor: a Forge whose work can be called off. Calls may overtake each other."""

    def __init__(self, settings: GuidedSettings) -> None:
        self._forge = Forge(settings)
        self._work: asyncio.Task[Any] | None = None
        self._called_off = -1

    async def start(self) -> None:
        await self._forge.start()

    async def teach(self, number: int, vocabulary: Vocabulary) -> None:
        """Do as Forge.teach, unless the work of this number has been called off."""
        await self._while_wanted(number, self._forge.teach(vocabulary))

    async def compile(
        self, number: int, spec: GrammarSpec, key: str, fingerprint: str
    ) -> Verdict | VocabularyUnknown | None:
        """Do as Forge.compile; None: the work of this number has been called off."""
        return await self._while_wanted(number, self._forge.compile(spec, key, fingerprint))

    async def call_off(self, number: int) -> None:
        """End the work of this number, though it may not have begun; returns when it has ended."""
        self._called_off = number  # they only grow
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait({self._work})

    async def forker_pid(self) -> int | None:
        return self._forge.pid

    async def _while_wanted(self, number: int, work: Coroutine[Any, Any, T]) -> T | None:
        if number <= self._called_off:
            work.close()
            return None
        self._work = asyncio.ensure_future(work)
        await asyncio.wait({self._work})
        return None if self._work.cancelled() else self._work.result()


class Pool:
    """As many actors as the settings say, made when the first constraint comes. For one event loop."""

    def __init__(self, settings: GuidedSettings) -> None:
        self._settings = settings
        self._make = ray.remote(CompileActor).options(**settings.actor_options)
        self._actors: set[Any] = set()
        self._idle: deque[Any] = deque()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._numbers = itertools.count()
        self._num_starting = 0
        self._why_none = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def size(self) -> int:
        """Actors that live, as far as is known."""
        return len(self._actors)

    @property
    def num_idle(self) -> int:
        return len(self._idle)

    async def compile(self, spec: GrammarSpec, key: str, vocabulary: Vocabulary) -> Verdict:
        """Have an idle actor compile a constraint; cancelling this kills what works on it.

        When that actor is lost meanwhile, another one tries, once. Raises OverloadedError when too many wait, and
        EngineUnavailableError when no actor is idle in time, none can be had, or the second one is lost, too.
        """
        for _ in range(2):
            actor = await self._idle_actor()
            try:
                return await self._compile(actor, spec, key, vocabulary)
            except LOST as error:
                logger.warning("constraint %s: an actor that compiled it was lost: %r", key[:12], error)
            except VocabularyError as error:
                raise self._unavailable(f"The compilers cannot read this model's vocabulary: {error}") from error
        raise self._unavailable("The compiler was lost while it worked on this constraint, twice. Retry later.")
