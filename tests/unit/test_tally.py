from bisect import bisect_left
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engine.tally import News, Tally

BOUNDS = (0.1, 1.0, 10.0)


def test_a_value_is_in_its_bucket_and_all_above() -> None:
    tally = Tally(BOUNDS)
    tally.add(0.5)
    assert tally.news() == News((0, 1, 1, 1), 0.5)


def test_a_bound_belongs_to_its_bucket() -> None:
    tally = Tally(BOUNDS)
    for value in BOUNDS:
        tally.add(value)
    assert tally.news().buckets == (1, 2, 3, 3)


def test_what_was_seen_is_no_news() -> None:
    tally = Tally(BOUNDS)
    tally.add(99.0)
    tally.news()
    assert tally.news() == News((0, 0, 0, 0), 0.0)
    tally.add(0.0)
    assert tally.news() == News((1, 1, 1, 1), 0.0)


@given(st.lists(st.lists(st.floats(0, 20), max_size=9), max_size=9))
def test_all_news_together_are_all_values(batches: list[list[float]]) -> None:
    tally, news = Tally(BOUNDS), []
    for batch in batches:
        for value in batch:
            tally.add(value)
        news.append(tally.news())
    values = [value for batch in batches for value in batch]
    found = [sum(1 for value in values if bisect_left(BOUNDS, value) == index) for index in range(4)]
    assert [sum(each) for each in zip(*(one.buckets for one in news), strict=True)] == (
        list(accumulate(found)) if news else []
    )
    assert sum(one.total for one in news) == pytest.approx(sum(values))
    assert sum(one.count for one in news) == len(values)
