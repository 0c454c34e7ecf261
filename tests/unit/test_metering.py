import asyncio

from deployments.engine import metering
from deployments.types import Usage
from tests.aio import run


def test_counts_are_read_at_the_end_and_added() -> None:
    meter, context = metering.metered()
    made = [0]
    context.run(metering.note, lambda: Usage(7, made[0]))
    context.run(metering.note, lambda: Usage(0, 2))
    made[0] = 5
    assert meter.total() == Usage(7, 7)


def test_a_request_that_reached_no_engine() -> None:
    meter, _ = metering.metered()
    assert not meter.has_reached_engine
    assert meter.total() == Usage(0, 0)


def test_without_a_meter_nothing_happens() -> None:
    metering.note(lambda: Usage(1, 1))


def test_tasks_of_a_request_count_for_it_and_for_no_other() -> None:
    async def serve(tokens: int) -> None:
        await asyncio.sleep(0)
        await asyncio.create_task(later(tokens))

    async def later(tokens: int) -> None:
        metering.note(lambda: Usage(0, tokens))

    async def main() -> list[Usage]:
        meters = [metering.metered() for _ in range(3)]
        tasks = [asyncio.create_task(serve(n), context=context) for n, (_, context) in enumerate(meters)]
        await asyncio.gather(*tasks)
        return [meter.total() for meter, _ in meters]

    assert run(main()) == [Usage(0, 0), Usage(0, 1), Usage(0, 2)]
