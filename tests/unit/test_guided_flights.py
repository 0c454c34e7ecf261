"""One compilation for all who ask at once: who waits, who leaves, what is remembered."""

import asyncio
import gc
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

from config.guided import GuidedSettings
from deployments.errors import EngineUnavailableError, OverloadedError
from deployments.guided.flights import Flights
from deployments.guided.verdicts import Outcome, Source, Verdicts
from deployments.guided_types import (
    Compiled,
    CompilerStats,
    GrammarSpec,
    Refused,
    Verdict,
    Vocabulary,
    VocabularyUnknown,
)
from tests.aio import run, settle, until

SPEC = GrammarSpec("json", '{"type": "object"}')
VOCABULARY = Vocabulary("print", "{}", "", vocab_size=10, eos_token_id=1)
GOOD = Compiled("key", "xgrammar", b"artifact", compile_s=0.5, memory_bytes=1)
BAD = Refused("key", "`pattern` is no regular expression.")
COSTLY = Refused("key", "It took more than 5 s.", is_costly=True)


class Work:
    """Something that takes until it is told to end, and then returns, or raises, what it was given."""

    def __init__(self, result: Any = "done") -> None:
        self.result = result
        self.end = asyncio.Event()
        self.num_begun = 0
        self.num_cancelled = 0

    async def __call__(self) -> Any:
        self.num_begun += 1
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def ask(flights: Flights[Any], work: Work, times: int = 1, key: str = "key") -> list["asyncio.Task[Any]"]:
    return [asyncio.create_task(flights.run(key, work)) for _ in range(times)]


def test_32_who_ask_at_once_make_one_attempt() -> None:
    async def main() -> None:
        flights, work = Flights[str](), Work()
        asking = ask(flights, work, 32)
        await settle()
        work.end.set()
        assert await asyncio.gather(*asking) == ["done"] * 32
        assert work.num_begun == 1
        assert len(flights) == 0

    run(main())


def test_who_asks_later_makes_another_attempt_and_other_keys_have_their_own() -> None:
    async def main() -> None:
        flights, work = Flights[str](), Work()
        work.end.set()
        await asyncio.gather(*ask(flights, work), *ask(flights, work, key="other"))
        await asyncio.gather(*ask(flights, work))
        assert work.num_begun == 3

    run(main())


def test_an_error_reaches_all_who_wait() -> None:
    async def main() -> None:
        flights, work = Flights[str](), Work(OverloadedError("too many", None, 1))
        asking = ask(flights, work, 3)
        await settle()
        work.end.set()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert [str(result) for result in results] == ["too many"] * 3
        assert len(flights) == 0

    run(main())


def test_who_leaves_is_cancelled_alone() -> None:
    async def main() -> None:
        flights, work = Flights[str](), Work()
        asking = ask(flights, work, 3)
        await settle()
        asking[0].cancel()  # also the one who began
        asking[2].cancel()
        await settle()
        assert [each.cancelled() for each in asking] == [True, False, True]
        work.end.set()
        assert await asking[1] == "done"
        assert work.num_cancelled == 0

    run(main())


def test_the_attempt_ends_with_the_last_who_waits_and_the_next_begins_anew() -> None:
    async def main() -> None:
        before = asyncio.all_tasks()
        flights, work = Flights[str](), Work()
        asking = ask(flights, work, 2)
        await settle()
        for each in asking:
            each.cancel()
        late = ask(flights, work)
        await settle()
        assert (work.num_begun, work.num_cancelled, len(flights)) == (2, 1, 1)
        work.end.set()
        assert await late[0] == "done"
        await settle()
        assert (work.num_begun, work.num_cancelled, len(flights)) == (2, 1, 0)
        assert asyncio.all_tasks() == before

    run(main())


def test_an_attempt_that_fails_after_all_have_left_is_nobodys_error() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while it was cancelled")

    async def main() -> None:
        problems: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, problem: problems.append(problem))
        flights = Flights[str]()
        asking = asyncio.create_task(flights.run("key", stubborn))
        await settle()
        asking.cancel()
        await settle()
        gc.collect()
        assert problems == []

    run(main())


def test_an_attempt_that_others_call_off_is_an_error_not_a_cancellation() -> None:
    async def cancelled() -> str:
        raise asyncio.CancelledError

    async def main() -> None:
        with pytest.raises(EngineUnavailableError):
            await Flights[str]().run("key", cancelled)

    run(main())


def test_an_attempt_is_not_part_of_the_request_that_began_it() -> None:
    request: ContextVar[str] = ContextVar("request", default="none")

    async def read() -> str:
        return request.get()

    async def main() -> None:
        request.set("first")
        assert await Flights[str]().run("key", read) == "none"

    run(main())


class ScriptedPool:
    """Compiles what it is told to, one verdict or error after the other, when `go` is set."""

    def __init__(self, *verdicts: Verdict | Exception) -> None:
        self.verdicts = list(verdicts)
        self.asked: list[tuple[GrammarSpec, str, Vocabulary]] = []
        self.go = asyncio.Event()
        self.num_cancelled = 0

    async def compile(self, spec: GrammarSpec, key: str, vocabulary: Vocabulary) -> Verdict:
        self.asked.append((spec, key, vocabulary))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        verdict = self.verdicts.pop(0)
        if isinstance(verdict, Exception):
            raise verdict
        return verdict


class Notes:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self.outcomes: list[tuple[Outcome, str]] = []
        self.seconds: list[tuple[float, float]] = []
        self.stats: CompilerStats | None = None

    def answered(self, source: Source) -> None:
        self.sources.append(source)

    def compiled(self, outcome: Outcome, compiler: str, took_s: float, waited_s: float) -> None:
        self.outcomes.append((outcome, compiler))
        self.seconds.append((took_s, waited_s))

    def holds(self, stats: CompilerStats) -> None:
        self.stats = stats


class Desk:
    """Verdicts with their surroundings."""

    def __init__(self, *verdicts: Verdict | Exception, is_open: bool = True) -> None:
        self.pool, self.notes, self.now_s = ScriptedPool(*verdicts), Notes(), 0.0
        settings = GuidedSettings(max_vocabularies=1, quarantine_s=600)
        self.verdicts = Verdicts("replica", self.pool, settings, self.notes, lambda: self.now_s)
        self.verdicts.teach(VOCABULARY)
        if is_open:
            self.pool.go.set()

    def get(self, key: str = "key") -> Coroutine[Any, Any, Verdict | VocabularyUnknown]:
        return self.verdicts.get(SPEC, key, VOCABULARY.fingerprint)


def test_a_vocabulary_is_asked_for_only_to_compile() -> None:
    async def main() -> None:
        desk = Desk(GOOD)
        desk.verdicts.teach(Vocabulary("other", "{}", "", vocab_size=1, eos_token_id=0))
        assert await desk.get() == VocabularyUnknown("print", "replica")
        assert desk.notes.sources == []
        desk.verdicts.teach(VOCABULARY)
        assert await desk.get() == GOOD
        assert desk.pool.asked == [(SPEC, "key", VOCABULARY)]
        desk.verdicts.teach(Vocabulary("other", "{}", "", vocab_size=1, eos_token_id=0))
        assert isinstance(await desk.get(), Compiled)

    run(main())


@pytest.mark.parametrize("verdict", [GOOD, BAD], ids=["good", "bad"])
def test_a_verdict_is_made_once_and_then_said_to_be_cached(verdict: Verdict) -> None:
    async def main() -> None:
        desk = Desk(verdict)
        assert desk.verdicts.find("key") is None
        assert list(await asyncio.gather(desk.get(), desk.get())) == [verdict, verdict]
        again = await desk.get()
        assert again == desk.verdicts.find("key")
        assert again != verdict
        assert isinstance(again, Compiled | Refused)
        assert again.is_cached
        assert len(desk.pool.asked) == 1
        assert desk.notes.sources == ["compiler", "compiler", "cache"]

    run(main())


def test_what_cost_much_is_refused_at_once_until_it_may_be_tried_again() -> None:
    async def main() -> None:
        desk = Desk(COSTLY, GOOD)
        assert await desk.get() == COSTLY
        desk.now_s = 590.0
        again = await desk.get()
        assert isinstance(again, Refused)
        assert again.message == "It took more than 5 s. It may be tried again in 10 s."
        assert desk.verdicts.find("key") == again
        desk.now_s = 601.0
        assert await desk.get() == GOOD
        assert desk.notes.sources == ["compiler", "quarantine", "compiler"]
        assert desk.notes.outcomes == [("costly", ""), ("compiled", "xgrammar")]

    run(main())


@pytest.mark.parametrize("error", [OverloadedError("full", None, 1), EngineUnavailableError("no actor", None, 1)])
def test_what_is_not_the_constraints_fault_is_not_remembered(error: Exception) -> None:
    async def main() -> None:
        desk = Desk(error, GOOD)
        with pytest.raises(type(error)):
            await desk.get()
        assert desk.verdicts.find("key") is None
        assert await desk.get() == GOOD
        assert desk.notes.outcomes == [("unavailable", ""), ("compiled", "xgrammar")]

    run(main())


def test_what_nobody_waits_for_any_more_is_not_compiled() -> None:
    async def main() -> None:
        desk = Desk(GOOD, is_open=False)
        asking = [asyncio.create_task(desk.get()) for _ in range(2)]
        await until(lambda: bool(desk.pool.asked))
        assert desk.verdicts.stats().num_under_way == 1
        asking[0].cancel()
        await settle()
        assert desk.pool.num_cancelled == 0
        asking[1].cancel()
        await settle()
        assert desk.pool.num_cancelled == 1
        assert desk.notes.outcomes == [("left", "")]
        assert desk.notes.stats == desk.verdicts.stats() == CompilerStats(1, 0, 0, 0, 0)

    run(main())


def test_waiting_is_told_from_compiling() -> None:
    async def main() -> None:
        desk = Desk(GOOD, is_open=False)
        asking = asyncio.create_task(desk.get())
        await until(lambda: bool(desk.pool.asked))
        desk.now_s += 2.0
        desk.pool.go.set()
        await asking
        assert desk.notes.seconds == [(2.0, 2.0 - GOOD.compile_s)]

    run(main())


def test_what_it_holds_is_counted() -> None:
    async def main() -> None:
        desk = Desk(GOOD, COSTLY)
        await desk.get()
        await desk.get("other")
        stats = desk.verdicts.stats()
        assert desk.notes.stats == stats
        assert (stats.num_compiled, stats.num_cached, stats.num_quarantined) == (2, 1, 1)
        assert stats.cache_bytes > len(GOOD.artifact)

    run(main())
