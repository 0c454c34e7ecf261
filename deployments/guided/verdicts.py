"""Verdicts on constraints: looked up, waited for, or asked of the pool, so that each is compiled once."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Protocol

from config.guided import GuidedSettings
from deployments.errors import ServingError
from deployments.guided.cache import VerdictCache, VocabularyCache
from deployments.guided.flights import Flights
from deployments.guided.quarantine import Quarantine
from deployments.guided_types import (
    Compiled,
    CompilerStats,
    GrammarSpec,
    Refused,
    Verdict,
    Vocabulary,
    VocabularyUnknown,
)

Source = Literal["cache", "quarantine", "compiler"]
Outcome = Literal["compiled", "refused", "costly", "unavailable", "left"]


class Pool(Protocol):
    async def compile(self, spec: GrammarSpec, key: str, vocabulary: Vocabulary) -> Verdict:
        """Compile a constraint; ends its work when it is cancelled.

        Raises OverloadedError and EngineUnavailableError, which say nothing about the constraint.
        """


class Recorder(Protocol):
    """Where it is written down what happens."""

    def answered(self, source: Source) -> None:
        """A request has its verdict, or waits for one."""

    def compiled(self, outcome: Outcome, compiler: str, took_s: float, waited_s: float) -> None:
        """A compilation has ended.

        compiler: "" when there is no artifact. took_s: all of it; waited_s: what of that was no work on an artifact.
        """

    def holds(self, stats: CompilerStats) -> None:
        """Something has been added or removed."""


class Verdicts:
    """Those of the GuidedCompiler replica `name`. `now_s` is any steady clock."""

    def __init__(
        self,
        name: str,
        pool: Pool,
        settings: GuidedSettings,
        recorder: Recorder,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._pool = pool
        self._recorder = recorder
        self._now_s = now_s
        self._cache = VerdictCache(settings.cache_bytes)
        self._quarantine = Quarantine(settings.quarantine_s, settings.max_quarantined, now_s)
        self._vocabularies = VocabularyCache(settings.max_vocabularies)
        self._flights: Flights[Verdict] = Flights()
        self._num_compiled = 0
        self._num_under_way = 0

    def teach(self, vocabulary: Vocabulary) -> None:
        self._vocabularies.put(vocabulary)

    def find(self, key: str) -> Verdict | None:
        """Return what is known of a constraint now."""
        verdict = self._quarantine.get(key) or self._cache.get(key)
        return replace(verdict, is_cached=True) if verdict is not None else None

    async def get(self, spec: GrammarSpec, key: str, fingerprint: str) -> Verdict | VocabularyUnknown:
        """Return what is known, else have it compiled, once however many ask; raises as Pool.compile."""
        verdict = self.find(key)
        if verdict is not None:
            is_quarantined = isinstance(verdict, Refused) and verdict.is_costly
            self._recorder.answered("quarantine" if is_quarantined else "cache")
            return verdict
        vocabulary = self._vocabularies.get(fingerprint)
        if vocabulary is None:
            return VocabularyUnknown(fingerprint, self._name)
        self._recorder.answered("compiler")
        return await self._flights.run(key, lambda: self._compile(spec, key, vocabulary))

    def stats(self) -> CompilerStats:
        return CompilerStats(
            num_compiled=self._num_compiled,
            num_under_way=self._num_under_way,
            num_cached=len(self._cache),
            cache_bytes=self._cache.num_bytes,
            num_quarantined=len(self._quarantine),
        )

    async def _compile(self, spec: GrammarSpec, key: str, vocabulary: Vocabulary) -> Verdict:
        self._num_compiled += 1
        self._num_under_way += 1
        self._recorder.holds(self.stats())
        begin_s = self._now_s()
        outcome: Outcome = "left"
        compiler, compile_s = "", 0.0
        try:
            verdict = await self._pool.compile(spec, key, vocabulary)
            outcome = self._keep(verdict)
            if isinstance(verdict, Compiled):
                compiler, compile_s = verdict.compiler, verdict.compile_s
            return verdict
        except ServingError:
            outcome = "unavailable"
            raise
        finally:
            self._num_under_way -= 1
            took_s = self._now_s() - begin_s
            self._recorder.compiled(outcome, compiler, took_s, max(0.0, took_s - compile_s))
            self._recorder.holds(self.stats())

    def _keep(self, verdict: Verdict) -> Outcome:
        if isinstance(verdict, Refused) and verdict.is_costly:
            self._quarantine.put(verdict)
            return "costly"
        self._cache.put(verdict)
        return "compiled" if isinstance(verdict, Compiled) else "refused"
