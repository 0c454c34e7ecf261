from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.streaming import StreamingSettings
from deployments.engine.stream_interval import MARGIN_TOKENS, PERIOD_S, StreamInterval, next_interval

SETTINGS = StreamingSettings()


def decided(
    tokens_per_s: float, num_streams: int = 32, settings: StreamingSettings = SETTINGS, periods: int = 8
) -> StreamInterval:
    """Return the interval of streams that have run at one speed for some periods."""
    interval = StreamInterval(settings)
    for period in range(periods):
        run(interval, tokens_per_s, num_streams, period)
    return interval


def run(interval: StreamInterval, tokens_per_s: float, num_streams: int, period: int) -> int:
    for _ in range(max(1, int(tokens_per_s * PERIOD_S))):
        interval.add([1 / tokens_per_s] * num_streams)
    return interval.decide(num_streams, period * PERIOD_S)


def test_many_fast_streams_join_tokens() -> None:
    assert decided(60).tokens == 4


@pytest.mark.parametrize("tokens_per_s", [1, 60, 10_000])
def test_one_stream_never_does(tokens_per_s: float) -> None:
    fewest = StreamingSettings(min_streams=2)
    assert decided(tokens_per_s, num_streams=1, settings=fewest).tokens == 1


@pytest.mark.parametrize("tokens_per_s", [0.5, 10, 15, 29])
def test_slow_streams_never_do(tokens_per_s: float) -> None:
    assert decided(tokens_per_s, num_streams=1000).tokens == 1


def test_few_streams_never_do() -> None:
    assert decided(60, SETTINGS.min_streams - 1).tokens == 1
    assert decided(60, SETTINGS.min_streams).tokens == 4


def test_the_interval_has_a_bound() -> None:
    assert decided(10_000).tokens == SETTINGS.max_interval_tokens
    assert decided(10_000, settings=StreamingSettings(max_interval_tokens=1)).tokens == 1


def test_before_anything_was_measured_nothing_is_joined() -> None:
    interval = StreamInterval(SETTINGS)
    assert interval.is_due(0.0)
    assert interval.decide(1000, 0.0) == 1
    interval.add([])
    assert interval.decide(1000, 1.0) == 1


def test_it_is_decided_once_a_period() -> None:
    interval = StreamInterval(SETTINGS)
    interval.decide(32, 100.0)
    assert not interval.is_due(100.0 + PERIOD_S / 2)
    assert interval.is_due(100.0 + PERIOD_S)


def test_slower_streams_are_followed() -> None:
    interval = decided(120)
    assert interval.tokens == 8
    found = [run(interval, 30, 32, period) for period in range(8, 16)]
    assert found == sorted(found, reverse=True)
    assert found[-1] == 2


def test_one_long_step_does_not_decide_alone() -> None:
    interval = decided(120)
    interval.add([0.03] * 32)
    assert run(interval, 120, 32, 8) > 5


def test_around_a_bound_the_interval_stays() -> None:
    speeds = [59, 61] * 10
    interval = decided(60)
    found = [run(interval, speed, 32, period) for period, speed in enumerate(speeds)]
    assert sum(one != other for one, other in pairwise(found)) <= 1
    least = SETTINGS.min_streams
    found = [run(interval, 60, num, period) for period, num in enumerate([least, least - 1] * 10)]
    assert len(set(found)) == 1


def test_streams_after_a_quiet_time_are_measured_anew() -> None:
    interval = decided(10_000)
    assert run(interval, 10_000, 1, 8) == 1
    assert interval.decide(32, 100.0) == 1
    assert run(interval, 60, 32, 401) == 4


@given(st.integers(1, 64), st.floats(0.001, 1000), st.integers(1, 64))
def test_no_stream_has_fewer_updates_than_asked_for(current: int, room: float, longest: int) -> None:
    tokens = next_interval(min(current, longest), room, longest)
    assert 1 <= tokens <= longest
    assert tokens <= max(1, room) + 1e-6
    assert tokens >= min(longest, int(room - MARGIN_TOKENS))
