"""Constraints compiled in processes of their own: limits, kills, and what is left afterwards. Real processes."""

import asyncio
import contextlib
import functools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import psutil
import pytest

from config.guided import CompileLimits, GuidedSettings
from config.models import PROJECT_ROOT
from deployments.guided.artifact import spec_key, unpack, vocabulary_of
from deployments.guided.forge import BusyError, Forge, VocabularyError
from deployments.guided.link import CompilerCrashedError
from deployments.guided.wire import LENGTH_BYTES, MAX_FRAME_BYTES, Frames, frame
from deployments.guided_types import Compiled, GrammarSpec, Refused, Verdict, Vocabulary, VocabularyUnknown
from tests.harness import eventually
from tests.vocabularies import (
    PERSON,
    SLOW,
    SLOW_FOR_ONE,
    SLOW_MASKS,
    bytes_vocabulary,
    demo_vocabulary,
    optional_properties,
)

HANGS_AFTER_S = 120
CALM = {"max_mask_ms": 10_000, "max_walk_ms": 100_000}
"""On a busy machine, too, masks are fast enough."""


def settings(**limits: Any) -> GuidedSettings:
    return GuidedSettings(compilation=CompileLimits.model_validate({"timeout_s": 30, **CALM, **limits}))


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, HANGS_AFTER_S))


@contextlib.asynccontextmanager
async def forging(settings: GuidedSettings, *vocabularies: Vocabulary) -> AsyncIterator[Forge]:
    forge = Forge(settings)
    try:
        for vocabulary in vocabularies:
            await forge.teach(vocabulary)
        yield forge
    finally:
        forge.close()


@functools.cache
def without_llguidance() -> Vocabulary:
    """Return the demo model's vocabulary as it is when llguidance cannot read its tokenizer."""
    demo = demo_vocabulary()
    return vocabulary_of(demo.tokenizer_info, "", demo.vocab_size, demo.eos_token_id)


async def verdict(forge: Forge, spec: GrammarSpec, vocabulary: Vocabulary) -> Verdict | VocabularyUnknown:
    return await forge.compile(spec, spec_key(spec, vocabulary.fingerprint), vocabulary.fingerprint)


def jobs(forge: Forge) -> list[psutil.Process]:
    """Return the forked processes, zombies too."""
    return psutil.Process(forge.pid).children() if forge.pid else []


async def until(condition: Callable[[], Any], what: str) -> Any:
    return await asyncio.to_thread(eventually, condition, what, 60)


def test_a_constraint_is_compiled_and_no_process_is_left() -> None:
    async def main() -> None:
        async with forging(settings(), demo_vocabulary()) as forge:
            for _ in range(3):
                compiled = await verdict(forge, PERSON, demo_vocabulary())
                assert isinstance(compiled, Compiled)
                assert compiled.compiler == "xgrammar"
                assert unpack(compiled.artifact).compiler == "xgrammar"
                assert compiled.compile_s > 0
                assert compiled.key == spec_key(PERSON, demo_vocabulary().fingerprint)
            await until(lambda: not jobs(forge), "no job is left, no zombie either")

    run(main())


def test_the_process_that_forks_is_small_and_has_one_thread() -> None:
    async def main() -> None:
        async with forging(settings(), demo_vocabulary()) as forge:
            process = psutil.Process(forge.pid)
            assert process.num_threads() == 1
            assert not [file.path for file in process.memory_maps() if "torch" in file.path]

    run(main())


def test_what_is_too_large_for_xgrammar_is_built_by_llguidance() -> None:
    async def main() -> None:
        async with forging(settings(max_artifact_bytes=4096), demo_vocabulary()) as forge:
            compiled = await verdict(forge, PERSON, demo_vocabulary())
            assert isinstance(compiled, Compiled)
            assert compiled.compiler == "llguidance"
            assert unpack(compiled.artifact).compiler == "llguidance"
            assert compiled.memory_bytes > 0

    run(main())


def test_what_takes_too_long_is_built_by_llguidance_within_the_time() -> None:
    async def main() -> None:
        async with forging(settings(timeout_s=5), demo_vocabulary()) as forge:
            compiled = await verdict(forge, SLOW_FOR_ONE, demo_vocabulary())
            assert isinstance(compiled, Compiled)
            assert compiled.compiler == "llguidance"
            await until(lambda: not jobs(forge), "what took too long is killed")

    run(main())


@pytest.mark.parametrize(
    ("spec", "limits", "reason", "is_costly"),
    [
        (SLOW, {"timeout_s": 1}, "xgrammar: compiling it is not done within 1 s (compilation.timeout_s)", True),
        (SLOW_MASKS, {"timeout_s": 2, "max_mask_ms": 20}, "xgrammar: finding out what may come next", None),
        (
            optional_properties(400),
            {"memory_bytes": 2**26},
            "67108864 bytes of memory (compilation.memory_bytes)",
            True,
        ),
        (optional_properties(20), {"max_artifact_bytes": 1024}, "1024 (compilation.max_artifact_bytes)", False),
    ],
)
def test_what_no_compiler_can_have_is_refused_and_says_the_limit(
    spec: GrammarSpec, limits: dict[str, Any], reason: str, is_costly: bool | None
) -> None:
    async def main() -> None:
        async with forging(settings(**limits), without_llguidance()) as forge:
            refused = await verdict(forge, spec, without_llguidance())
            assert isinstance(refused, Refused)
            assert reason in refused.message
            assert is_costly in (None, refused.is_costly)
            assert isinstance(await verdict(forge, PERSON, without_llguidance()), Compiled | Refused)

    run(main())


def test_what_is_wrong_is_refused_without_trying_another() -> None:
    async def main() -> None:
        async with forging(settings(), demo_vocabulary()) as forge:
            refused = await verdict(forge, GrammarSpec("json", "{} " * 2**20), demo_vocabulary())
            assert isinstance(refused, Refused)
            assert not refused.is_costly

    run(main())


def test_a_compiler_that_is_killed_is_replaced_by_the_other() -> None:
    async def main() -> None:
        async with forging(settings(patience_s=60), demo_vocabulary()) as forge:
            asking = asyncio.create_task(verdict(forge, SLOW_FOR_ONE, demo_vocabulary()))
            (job,) = await until(lambda: jobs(forge), "the job runs")
            await until(lambda: job.cpu_times().user > 1, "it has planned, and compiles")
            job.kill()
            compiled = await asking
            assert isinstance(compiled, Compiled)
            assert compiled.compiler == "llguidance"

    run(main())


def test_a_compiler_that_is_killed_is_a_refusal_when_there_is_no_other() -> None:
    async def main() -> None:
        async with forging(settings(), without_llguidance()) as forge:
            asking = asyncio.create_task(verdict(forge, SLOW, without_llguidance()))
            (job,) = await until(lambda: jobs(forge), "the job runs")
            job.kill()
            refused = await asking
            assert isinstance(refused, Refused)
            assert "crashed" in refused.message
            assert refused.is_costly

    run(main())


def test_who_leaves_ends_the_work_at_once() -> None:
    async def main() -> None:
        async with forging(settings(), demo_vocabulary()) as forge:
            asking = asyncio.create_task(verdict(forge, SLOW, demo_vocabulary()))
            (job,) = await until(lambda: jobs(forge), "the job runs")
            asking.cancel()
            await until(lambda: not job.is_running() and not jobs(forge), "the job is killed")
            assert isinstance(await verdict(forge, PERSON, demo_vocabulary()), Compiled)

    run(main())


def test_when_the_process_that_forks_dies_its_work_is_lost_and_the_next_finds_a_new_one() -> None:
    async def main() -> None:
        async with forging(settings(), demo_vocabulary()) as forge:
            asking = asyncio.create_task(verdict(forge, SLOW, demo_vocabulary()))
            (job,) = await until(lambda: jobs(forge), "the job runs")
            psutil.Process(forge.pid).kill()
            with pytest.raises(CompilerCrashedError):
                await asking
            await until(lambda: not job.is_running(), "the job ends with it")
            assert await verdict(forge, PERSON, demo_vocabulary()) == VocabularyUnknown(demo_vocabulary().fingerprint)
            await forge.teach(demo_vocabulary())
            assert isinstance(await verdict(forge, PERSON, demo_vocabulary()), Compiled)

    run(main())


def test_a_job_that_got_no_processor_is_not_the_constraints_fault() -> None:
    async def main() -> None:
        async with forging(settings(timeout_s=4), demo_vocabulary()) as forge:
            asking = asyncio.create_task(verdict(forge, SLOW, demo_vocabulary()))
            (job,) = await until(lambda: jobs(forge), "the job runs")
            job.suspend()
            with pytest.raises(BusyError):
                await asking
            assert isinstance(await verdict(forge, PERSON, demo_vocabulary()), Compiled)

    run(main())


def test_when_the_process_that_forks_hangs_it_is_replaced() -> None:
    async def main() -> None:
        async with forging(settings(timeout_s=1), demo_vocabulary()) as forge:
            stopped = psutil.Process(forge.pid)
            stopped.suspend()
            with pytest.raises(CompilerCrashedError, match="hangs"):
                await verdict(forge, PERSON, demo_vocabulary())
            assert not stopped.is_running()
            assert await verdict(forge, PERSON, demo_vocabulary()) == VocabularyUnknown(demo_vocabulary().fingerprint)

    run(main())


def test_the_vocabulary_that_was_not_used_for_the_longest_time_is_forgotten() -> None:
    async def main() -> None:
        few = GuidedSettings(max_vocabularies=1, compilation=settings().compilation)
        async with forging(few, demo_vocabulary(), bytes_vocabulary()) as forge:
            assert await verdict(forge, PERSON, demo_vocabulary()) == VocabularyUnknown(demo_vocabulary().fingerprint)
            assert isinstance(await verdict(forge, PERSON, bytes_vocabulary()), Compiled)

    run(main())


def test_a_vocabulary_that_cannot_be_read_is_refused_and_the_others_stay() -> None:
    async def main() -> None:
        async with forging(settings(), bytes_vocabulary()) as forge:
            with pytest.raises(VocabularyError):
                await forge.teach(Vocabulary("broken", "no JSON", "", 1, 0))
            assert isinstance(await verdict(forge, PERSON, bytes_vocabulary()), Compiled)

    run(main())


def test_a_tokenizer_that_llguidance_cannot_read_leaves_xgrammar() -> None:
    async def main() -> None:
        info = bytes_vocabulary().tokenizer_info
        odd = vocabulary_of(info, "no JSON", bytes_vocabulary().vocab_size, bytes_vocabulary().eos_token_id)
        async with forging(settings(), odd) as forge:
            assert isinstance(await verdict(forge, PERSON, odd), Compiled)

    run(main())


def test_constraints_asked_for_at_once_are_compiled_one_after_the_other() -> None:
    async def main() -> None:
        specs = [GrammarSpec("regex", f"[a-z]{{{number}}}") for number in range(1, 6)]
        async with forging(settings(), bytes_vocabulary()) as forge:
            verdicts = await asyncio.gather(*(verdict(forge, spec, bytes_vocabulary()) for spec in specs))
            assert [found.key for found in verdicts if isinstance(found, Compiled)] == [
                spec_key(spec, bytes_vocabulary().fingerprint) for spec in specs
            ]

    run(main())


OWNER = """
import asyncio, sys
from tests.unit.test_guided_forge import SLOW, Forge, bytes_vocabulary, settings, verdict

async def main():
    forge = Forge(settings())
    await forge.teach(bytes_vocabulary())
    print(forge.pid, flush=True)
    await verdict(forge, SLOW, bytes_vocabulary())

asyncio.run(main())
"""


def test_processes_end_with_the_one_that_asks_even_when_it_is_killed() -> None:
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            forker = psutil.Process(int(owner.stdout.readline()))
            (job,) = eventually(forker.children, "the job runs", 60)
        finally:
            owner.kill()
    assert psutil.wait_procs([forker, job], timeout=60)[1] == []


def test_frames_are_put_together_from_any_pieces() -> None:
    messages = [b"", b"one", bytes(1000)]
    data = b"".join(map(frame, messages))
    for size in (1, 7, len(data)):
        frames = Frames()
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        assert [message for piece in pieces for message in frames.feed(piece)] == messages


def test_a_length_that_no_message_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="a message of"):
        list(Frames().feed(MAX_FRAME_BYTES.to_bytes(LENGTH_BYTES, "little")))
