import asyncio

import pytest

from config.limits import Deadlines
from deployments.errors import DeadlineExceededError
from deployments.ingress.pace import Pace
from tests.aio import run

NEVER = asyncio.Event
SHORT_S = 0.02


def test_a_stream_that_does_not_begin() -> None:
    async def main() -> None:
        async with Pace(Deadlines(first_byte_s=SHORT_S), is_stream=True):
            await NEVER().wait()

    with pytest.raises(DeadlineExceededError, match=r"no progress for 0\.02 s"):
        run(main())


def test_a_whole_answer_has_the_total_time() -> None:
    async def main() -> str:
        async with Pace(Deadlines(first_byte_s=SHORT_S), is_stream=False):
            await asyncio.sleep(3 * SHORT_S)
            return "done"

    assert run(main()) == "done"


def test_a_stream_that_stops() -> None:
    async def main() -> None:
        async with Pace(Deadlines(idle_s=SHORT_S), is_stream=True) as pace:
            pace.started()
            await NEVER().wait()

    with pytest.raises(DeadlineExceededError, match="no progress"):
        run(main())


def test_a_stream_that_moves_is_not_idle_but_has_an_end() -> None:
    async def main() -> None:
        async with Pace(Deadlines(idle_s=1, total_s=1.5), is_stream=True) as pace:
            pace.started()
            while True:
                await asyncio.sleep(SHORT_S)
                pace.moved()

    with pytest.raises(DeadlineExceededError, match="took longer than"):
        run(main())


def test_a_client_that_leaves_is_no_deadline() -> None:
    async def main() -> None:
        async def work() -> None:
            async with Pace(Deadlines(), is_stream=True):
                await NEVER().wait()

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_errors_of_the_block_are_its_own() -> None:
    async def main() -> None:
        async with Pace(Deadlines(), is_stream=True):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        run(main())
