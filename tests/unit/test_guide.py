"""A replica's constraints: compiled once, loaded once, kept while they are used."""

import asyncio

import pytest

from config.guided import EngineGuidedSettings
from deployments.engine.guide import Guide
from deployments.errors import (
    CompilerUnavailableError,
    EngineUnavailableError,
    InvalidRequestError,
    OverloadedError,
)
from deployments.guided.artifact import spec_key
from deployments.guided_types import GrammarSpec
from tests.aio import run, settle, until
from tests.guided import REGEX, SMALL, VOCABULARY, InMemoryCompiler, InMemoryCore, make_guide

MEGABYTE = 2**20


async def use(guide: Guide, spec: GrammarSpec) -> str:
    pending = guide.expect(spec)
    try:
        return (await pending.ready()).compiler
    finally:
        pending.leave()


def test_many_requests_compile_and_load_once() -> None:
    async def main() -> None:
        compiler = InMemoryCompiler()
        guide, core = make_guide(compiler)
        assert await asyncio.gather(*(use(guide, REGEX) for _ in range(32))) == ["xgrammar"] * 32
        await use(guide, REGEX)
        assert (len(compiler.asked), core.num_loads) == (1, 1)
        assert core.held == {spec_key(REGEX, "fingerprint"): b"artifact"}

    run(main())


def test_the_first_receipt_tells_that_it_was_compiled_and_later_ones_that_it_was_there() -> None:
    async def main() -> None:
        guide, _ = make_guide(InMemoryCompiler())
        first, second = guide.expect(REGEX), None
        receipt = await first.ready()
        assert (receipt.kind, receipt.compile_s, receipt.is_cached, receipt.enforced) == (
            "regex",
            0.5,
            False,
            ("type",),
        )
        second = guide.expect(REGEX)
        assert second.is_ready
        assert (await second.ready()).is_cached

    run(main())


def test_a_refusal_is_a_400_with_the_compilers_words() -> None:
    async def main() -> None:
        guide, core = make_guide(InMemoryCompiler("refused"))
        with pytest.raises(InvalidRequestError, match="too deep"):
            await use(guide, REGEX)
        assert core.num_loads == 0

    run(main())


def test_without_the_pool_small_ones_are_the_engines_and_others_are_503() -> None:
    async def main() -> None:
        compiler = InMemoryCompiler(EngineUnavailableError("nobody is there"))
        guide, core = make_guide(compiler, small_timeout_s=0.25, timeout_s=3, pool_retry_s=60)
        with pytest.raises(CompilerUnavailableError, match="nobody is there"):
            await use(guide, REGEX)
        assert await use(guide, SMALL) == "engine"
        assert await use(guide, SMALL) == "engine"
        assert await use(guide, GrammarSpec("choice", '["a"]')) == "engine"
        assert core.num_loads == 0
        assert compiler.asked == [(REGEX, 3), (SMALL, 0.25)]

    run(main())


def test_when_the_pool_is_back_it_compiles_small_ones_again() -> None:
    async def main() -> None:
        compiler = InMemoryCompiler(EngineUnavailableError("nobody is there"))
        guide, _ = make_guide(compiler, pool_retry_s=0)
        assert await use(guide, SMALL) == "engine"
        compiler.outcome = "compiled"
        assert await use(guide, SMALL) == "xgrammar"

    run(main())


def test_a_full_pool_is_no_reason_to_refuse_small_ones() -> None:
    async def main() -> None:
        guide, _ = make_guide(InMemoryCompiler(OverloadedError("too many wait")))
        with pytest.raises(OverloadedError):
            await use(guide, REGEX)
        assert await use(guide, SMALL) == "engine"

    run(main())


def test_without_whitespace_it_is_another_constraint() -> None:
    async def main() -> None:
        compiler = InMemoryCompiler()
        guide = Guide(compiler, InMemoryCore(), VOCABULARY, EngineGuidedSettings(), any_whitespace=False)
        await use(guide, REGEX)
        assert [spec.any_whitespace for spec, _ in compiler.asked] == [False]

    run(main())


def test_what_the_core_cannot_read_is_a_503_and_tried_again() -> None:
    async def main() -> None:
        guide, core = make_guide(InMemoryCompiler())
        core.is_broken = True
        with pytest.raises(CompilerUnavailableError, match="could not be loaded"):
            await use(guide, REGEX)
        core.is_broken = False
        assert await use(guide, REGEX) == "xgrammar"

    run(main())


def test_when_the_last_one_leaves_the_compilation_ends() -> None:
    async def main() -> None:
        compiler = InMemoryCompiler()
        compiler.may_go_on.clear()
        guide, core = make_guide(compiler)
        first, second = guide.expect(REGEX), guide.expect(REGEX)
        await until(lambda: len(compiler.asked) == 1)
        first.leave()
        first.leave()
        await settle()
        assert compiler.num_cancelled == 0
        second.leave()
        await until(lambda: compiler.num_cancelled == 1)
        compiler.may_go_on.set()
        assert await use(guide, REGEX) == "xgrammar"
        assert core.num_loads == 1

    run(main())


def test_what_is_loaded_when_its_last_request_leaves_is_on_the_shelf() -> None:
    async def main() -> None:
        guide, core = make_guide(InMemoryCompiler())
        core.may_go_on.clear()
        pending = guide.expect(REGEX)
        await until(lambda: core.num_loads == 1)
        pending.leave()
        await settle()
        core.may_go_on.set()
        await until(lambda: bool(core.held))
        await settle()
        assert await use(guide, REGEX) == "xgrammar"
        assert core.num_loads == 1

    run(main())


def test_who_waits_too_long_for_the_core_is_told() -> None:
    async def main() -> None:
        guide, core = make_guide(InMemoryCompiler(), timeout_s=0.01)
        core.may_go_on.clear()
        with pytest.raises(CompilerUnavailableError, match="could not be loaded"):
            await use(guide, REGEX)

    run(main())


def test_constraints_on_their_way_count() -> None:
    async def main() -> None:
        guide, core = make_guide(InMemoryCompiler(size_bytes=MEGABYTE), store_bytes=3 * MEGABYTE)
        core.may_go_on.clear()
        pending = [guide.expect(GrammarSpec("regex", str(number))) for number in range(5)]
        await until(lambda: core.num_loads == 3)
        core.may_go_on.set()
        outcomes = await asyncio.gather(*(one.ready() for one in pending), return_exceptions=True)
        assert sum(isinstance(outcome, OverloadedError) for outcome in outcomes) == 2

    run(main())


def test_the_core_holds_no_more_than_it_may_and_what_is_used_stays() -> None:
    async def main() -> None:
        guide, core = make_guide(InMemoryCompiler(size_bytes=MEGABYTE), store_bytes=2 * MEGABYTE)
        used = guide.expect(GrammarSpec("regex", "0"))
        await used.ready()
        for number in range(1, 5):
            await use(guide, GrammarSpec("regex", str(number)))
        kept = {spec_key(GrammarSpec("regex", text), "fingerprint") for text in "04"}
        assert core.held.keys() == kept
        also = guide.expect(GrammarSpec("regex", "4"))
        await also.ready()
        with pytest.raises(OverloadedError):
            await use(guide, REGEX)
        used.leave()
        assert await use(guide, REGEX) == "xgrammar"

    run(main())


def test_nobody_who_stops_waiting_takes_it_from_others() -> None:
    async def main() -> None:
        compiler = InMemoryCompiler()
        compiler.may_go_on.clear()
        guide, _ = make_guide(compiler)
        pending = guide.expect(REGEX)
        impatient = asyncio.create_task(pending.ready())
        await settle()
        impatient.cancel()
        await asyncio.wait({impatient})
        compiler.may_go_on.set()
        assert (await pending.ready()).compiler == "xgrammar"

    run(main())


def test_a_constraint_can_be_looked_up() -> None:
    async def main() -> None:
        key = spec_key(REGEX, "fingerprint")
        guide, _ = make_guide(InMemoryCompiler())
        found = await guide.find(key, "regex")
        assert found is not None
        assert found.compiler == "xgrammar"
        assert await make_guide(InMemoryCompiler("forgotten"))[0].find(key, "regex") is None
        with pytest.raises(InvalidRequestError):
            await make_guide(InMemoryCompiler("refused"))[0].find(key, "regex")
        with pytest.raises(CompilerUnavailableError):
            await make_guide(InMemoryCompiler(EngineUnavailableError("away")))[0].find(key, "regex")

    run(main())
