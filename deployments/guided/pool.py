"""Ray actors that compile constraints, one each at a time: waiting for one, and replacing those that are lost."""

import asyncio
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayError

from config.guided import GuidedSettings
from deployments.errors import EngineUnavailableError, OverloadedError
from deployments.guided.forge import BusyError, Forge, VocabularyError
from deployments.guided.link import CompilerCrashedError
from deployments.guided_types import Compiled, GrammarSpec, Refused, Verdict, Vocabulary, VocabularyUnknown

logger = logging.getLogger("ray.serve")

RETRY_AFTER_S = 1
START_TIMEOUT_S = 60.0
START_AGAIN_AFTER_S = 1.0
STARTS_BEFORE_GIVING_UP = 2
"""After so many failed starts in a row nobody waits for the next one: one may have been killed by chance."""

ANSWERS_WITHIN_S = 5.0
"""How much longer than its work an actor's answer may take; an actor that takes longer hangs, and is replaced."""

BUSY = "This constraint ran out of time: the machine that compiles it is busy with other work. Retry later."
CLOSED = "The compilers are shutting down. Retry."
NONE_STARTS = "No actor that compiles constraints can be started. Retry later."

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

    async def pids(self) -> tuple[int, int | None]:
        """Return the processes: the actor's own, and the one that forks for it."""
        return os.getpid(), self._forge.pid

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
        self._num_failed_starts = 0
        self._is_closed = False
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
        EngineUnavailableError when no actor is idle in time, none can be had, the second one is lost, too, or others
        keep the machine busy.
        """
        for _ in range(2):
            actor = await self._idle_actor()
            try:
                return await self._compile(actor, spec, key, vocabulary)
            except LOST as error:
                logger.warning("constraint %s: an actor that compiled it was lost: %r", key[:12], error)
            except BusyError as error:
                raise unavailable(BUSY) from error
            except VocabularyError as error:
                raise unavailable(f"The compilers cannot read this model's vocabulary: {error}") from error
        raise unavailable("The compiler was lost while it worked on this constraint, twice. Retry later.")

    def close(self) -> None:
        """Kill all actors, and what they work on; who waits for one is told."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        for actor in self._actors:
            ray.kill(actor)
        self._actors.clear()
        self._idle.clear()
        self._tell_waiting(CLOSED)

    async def _compile(self, actor: Any, spec: GrammarSpec, key: str, vocabulary: Vocabulary) -> Verdict:
        """Have this actor compile; after that it is idle again, or replaced."""
        number = next(self._numbers)
        try:
            verdict = await self._ask(actor, number, spec, key, vocabulary)
        except asyncio.CancelledError:
            self._spawn(self._call_off(actor, number))
            raise
        except (CompilerCrashedError, VocabularyError, BusyError):  # in a process of the actor's, which itself is well
            self._release(actor)
            raise
        except BaseException:
            self._replace(actor)
            raise
        self._release(actor)
        return verdict

    async def _ask(self, actor: Any, number: int, spec: GrammarSpec, key: str, vocabulary: Vocabulary) -> Verdict:
        timeout_s = self._settings.compilation.timeout_s + ANSWERS_WITHIN_S
        for _ in range(2):
            answer = await within(timeout_s, actor.compile.remote(number, spec, key, vocabulary.fingerprint))
            if isinstance(answer, Compiled | Refused):
                return answer
            await within(START_TIMEOUT_S, actor.teach.remote(number, vocabulary))
        raise CompilerCrashedError("an actor does not know the vocabulary that it was taught")

    async def _call_off(self, actor: Any, number: int) -> None:
        try:
            await within(ANSWERS_WITHIN_S, actor.call_off.remote(number))
        except (RayError, TimeoutError):
            self._replace(actor)
        else:
            self._release(actor)

    async def _idle_actor(self) -> Any:
        """Wait for an actor that is idle, and answers."""
        self._start_missing()
        until_s = time.monotonic() + self._settings.wait_timeout_s
        while not self._is_closed:
            actor = await self._take(until_s)
            try:
                await within(until_s - time.monotonic(), actor.start.remote())
            except (RayError, TimeoutError) as error:
                logger.warning("an actor that compiles constraints was lost: %r", error)
                self._replace(actor)
            except BaseException:
                self._release(actor)
                raise
            else:
                return actor
        raise unavailable(CLOSED)

    async def _take(self, until_s: float) -> Any:
        if self._idle:
            return self._idle.popleft()
        if len(self._waiting) >= self._settings.max_waiting:
            text = f"{len(self._waiting)} constraints wait to be compiled, as many as may (max_waiting). Retry later."
            raise OverloadedError(text, None, RETRY_AFTER_S)
        if self._has_given_up():
            raise unavailable(NONE_STARTS)
        turn: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await asyncio.wait({turn}, timeout=max(0.0, until_s - time.monotonic()))
        except asyncio.CancelledError:
            if not turn.done():
                self._waiting.remove(turn)
            elif turn.exception() is None:
                self._release(turn.result())  # it came too late
            raise
        if not turn.done():
            self._waiting.remove(turn)
            limit = f"{self._settings.wait_timeout_s:g} s (wait_timeout_s)"
            raise unavailable(f"This constraint has waited {limit} to be compiled. Retry later.")
        return turn.result()

    def _release(self, actor: Any) -> None:
        """Give an actor to the one who has waited longest."""
        if self._waiting:
            self._waiting.popleft().set_result(actor)
        elif actor in self._actors:  # not closed meanwhile
            self._idle.append(actor)

    def _tell_waiting(self, why: str) -> None:
        while self._waiting:
            self._waiting.popleft().set_exception(unavailable(why))

    def _replace(self, actor: Any) -> None:
        if actor in self._actors:
            self._actors.remove(actor)
            ray.kill(actor)
        self._start_missing()

    def _start_missing(self) -> None:
        while not self._is_closed and len(self._actors) + self._num_starting < self._settings.num_actors:
            self._num_starting += 1
            self._spawn(self._start_one())

    async def _start_one(self) -> None:
        """Start an actor, however often it takes."""
        try:
            actor = await self._started()
            while actor is None:
                await asyncio.sleep(START_AGAIN_AFTER_S)
                actor = await self._started()
        finally:
            self._num_starting -= 1
        self._num_failed_starts = 0
        self._actors.add(actor)
        self._release(actor)

    async def _started(self) -> Any:
        """Return a new actor; None: there is none to be had now."""
        actor = self._make.remote(self._settings)
        try:
            await within(START_TIMEOUT_S, actor.start.remote())
        except BaseException as error:
            ray.kill(actor)
            if not isinstance(error, RayError | TimeoutError):
                raise
            logger.warning("an actor that compiles constraints could not be started: %r", error)
            self._num_failed_starts += 1
            if self._has_given_up():
                self._tell_waiting(NONE_STARTS)
            return None
        return actor

    def _has_given_up(self) -> bool:
        return not self._actors and self._num_failed_starts >= STARTS_BEFORE_GIVING_UP

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        # It belongs to the pool: Serve ends the calls of a request that ends.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def within(timeout_s: float, answer: Awaitable[T]) -> T:
    """Wait for an actor's answer so long at most; raises TimeoutError."""
    async with asyncio.timeout(max(0.0, timeout_s)):
        return await answer


def unavailable(text: str) -> EngineUnavailableError:
    return EngineUnavailableError(text, None, RETRY_AFTER_S)
