import asyncio
from functools import partial
from time import monotonic

import pytest

from deployments.engine import metering
from deployments.types import EngineTimes, Usage
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


def times_of(*all_stamps: tuple[float, ...] | None, took_s: float = 0.0, waited_s: float = 0.0) -> EngineTimes | None:
    """Return the times of a request with engine requests of these stamps, in seconds since its beginning."""

    async def main() -> EngineTimes | None:
        meter, context = metering.metered()
        begun_s = monotonic()
        for stamps in all_stamps:
            read = None if stamps is None else partial(to_stamps, begun_s, stamps)
            context.run(metering.note, lambda: Usage(1, 1), read)
        context.run(metering.waited, waited_s)
        await asyncio.sleep(took_s)
        return meter.end().times

    return run(main())


def to_stamps(begun_s: float, seconds: tuple[float, ...]) -> metering.Stamps:
    return metering.Stamps(*(begun_s + each_s for each_s in seconds))


def test_times_follow_each_other() -> None:
    times = times_of((0.001, 0.003, 0.006, 0.01), took_s=0.02)
    assert times is not None
    found = [*times.parts().values()]
    assert found[0] == pytest.approx(0.001, abs=5e-4)
    assert found[1:5] == pytest.approx([0, 0.002, 0.003, 0.004])
    assert found[5] >= 0.0099


def test_several_engine_requests_count_from_the_first_to_the_last() -> None:
    times = times_of((0.001, 0.01, 0.02, 0.03), (0.002, 0.003, 0.03, 0.04), took_s=0.05)
    assert times is not None
    assert (times.engine_queue_s, times.prefill_s, times.decode_s) == pytest.approx((0.002, 0.017, 0.02))


def test_the_wait_for_a_constraint_is_no_work_on_the_prompt() -> None:
    times = times_of((0.03, 0.03, 0.03, 0.03), took_s=0.04, waited_s=0.02)
    assert times is not None
    assert times.guided_wait_s == 0.02
    assert times.template_and_tokenize_s == pytest.approx(0.01, abs=5e-4)


def test_what_cannot_be_relied_on_is_no_time() -> None:
    assert times_of(None) is None  # an engine that keeps none
    assert times_of((-9.0, -8.0, -7.0, -6.0)) is None  # the clock of another machine
    assert times_of((0.0, -1e6, -1e6, -1e6)) is None  # aborted before it began


def test_without_an_engine_request_all_of_it_is_the_applications() -> None:
    times = times_of(took_s=0.01)
    assert times is not None
    assert list(times.parts().values())[1:] == [0] * 5
    assert times.template_and_tokenize_s >= 0.0099
