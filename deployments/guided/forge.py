"""Compile constraints one by one, each in processes that are killed when it takes too long or nobody wants it any more.

xgrammar is tried first. When it fails, or takes longer than `patience_s`, llguidance is tried, too, and what is ready
first counts.
"""

import asyncio
import itertools
import time

from config.guided import GuidedSettings
from deployments.guided.link import CompilerCrashedError, Link
from deployments.guided.trial import Attempt, Trial
from deployments.guided.wire import Ended, Event, Kill, Reported, Start, Taught, Teach
from deployments.guided_types import Compiler, GrammarSpec, Refused, Verdict, Vocabulary, VocabularyUnknown

GRACE_S = 1.0
"""How much later than its deadline a job's end may be heard of; after that, the process that forks hangs."""
TEACH_TIMEOUT_S = 60.0


class VocabularyError(Exception):
    """The compilers cannot read a vocabulary; says why."""


class BusyError(Exception):
    """Others have the processors: a constraint ran out of time through no fault of its own."""


class Forge:
    """One process that forks, and what asks it. It is started when it is needed, and again when it has died."""

    def __init__(self, settings: GuidedSettings) -> None:
        self._settings = settings
        self._timeout_s = settings.compilation.timeout_s
        self._link: Link | None = None
        self._lock = asyncio.Lock()
        self._numbers = itertools.count()

    @property
    def pid(self) -> int | None:
        """The process that forks; None: there is none now."""
        return self._link.pid if self._link is not None and self._link.is_alive else None

    async def start(self) -> None:
        """Have the process started, which otherwise the first call does."""
        async with self._lock:
            await self._linked()

    async def teach(self, vocabulary: Vocabulary) -> None:
        """Have a vocabulary ready; raises VocabularyError, or CompilerCrashedError."""
        async with self._lock:
            link = await self._linked()
            link.send(Teach(vocabulary))
            error = await self._taught(link, vocabulary.fingerprint)
        if error:
            raise VocabularyError(error)

    async def compile(self, spec: GrammarSpec, key: str, fingerprint: str) -> Verdict | VocabularyUnknown:
        """Return what becomes of a constraint, within `timeout_s` and a moment. Cancelling kills what works on it.

        Raises CompilerCrashedError when that may be another's fault: it is worth one more try; BusyError when it is not
        worth one now.
        """
        async with self._lock:
            link = await self._linked()
            first = self._start(link, "xgrammar", spec, fingerprint, self._timeout_s)
            trial = Trial(key, self._settings.compilation, first)
            try:
                return await self._follow(link, trial, spec, fingerprint)
            finally:
                for attempt in trial.attempts:
                    if not attempt.is_over:
                        link.send(Kill(attempt.job))

    def close(self) -> None:
        """Kill the process, and with it whatever it works on."""
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _linked(self) -> Link:
        if self._link is not None and not self._link.is_alive:
            self.close()
        if self._link is None:
            self._link = await Link.start(self._settings)
            # Imports take seconds where the disk is slow: no constraint's time.
            if await self._next(self._link, time.monotonic() + TEACH_TIMEOUT_S) is None:
                raise self._crashed("the process that compiles constraints does not start")
        return self._link

    async def _taught(self, link: Link, fingerprint: str) -> str:
        """Wait until a vocabulary is ready; returns why it cannot be."""
        deadline_s = time.monotonic() + TEACH_TIMEOUT_S
        while True:
            event = await self._next(link, deadline_s)
            if event is None:
                raise self._crashed("the process that compiles constraints hangs")
            if isinstance(event, Taught) and event.fingerprint == fingerprint:
                return event.error

    async def _follow(
        self, link: Link, trial: Trial, spec: GrammarSpec, fingerprint: str
    ) -> Verdict | VocabularyUnknown:
        begin_s = now_s = time.monotonic()
        alone_until_s, end_s = begin_s + self._settings.compilation.patience_s, begin_s + self._timeout_s
        while now_s < end_s + GRACE_S:
            if trial.grammar is not None and (trial.xgrammar.failure is not None or now_s >= alone_until_s):
                left_s = max(0.0, end_s - now_s)
                trial.llguidance = self._start(link, "llguidance", spec, fingerprint, left_s, trial.grammar)
            verdict = trial.verdict(now_s - begin_s)
            if isinstance(verdict, Refused) and trial.is_starved:
                raise BusyError
            if verdict is not None:
                return verdict
            event = await self._next(link, alone_until_s if now_s < alone_until_s else end_s + GRACE_S)
            if isinstance(event, Ended) and event.end == "vocabulary unknown" and event.job == trial.xgrammar.job:
                trial.xgrammar.is_over = True
                return VocabularyUnknown(fingerprint)
            if isinstance(event, Reported | Ended):
                trial.hear(event)
            now_s = time.monotonic()
        raise self._crashed("the process that compiles constraints hangs")

    def _start(
        self, link: Link, compiler: Compiler, spec: GrammarSpec, fingerprint: str, timeout_s: float, grammar: str = ""
    ) -> Attempt:
        job = next(self._numbers)
        link.send(Start(job, compiler, spec, fingerprint, timeout_s, grammar))
        return Attempt(compiler, job, "planning" if compiler == "xgrammar" else "compiling")

    async def _next(self, link: Link, until_s: float) -> Event | None:
        """Return what happens next; None: nothing did until then. Raises CompilerCrashedError."""
        try:
            return await link.next(until_s - time.monotonic())
        except TimeoutError:
            return None
        except CompilerCrashedError as error:
            raise self._crashed(str(error)) from error

    def _crashed(self, message: str) -> CompilerCrashedError:
        self.close()
        return CompilerCrashedError(message)
