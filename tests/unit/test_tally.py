from bisect import bisect_left
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.tally import Tally, Totals

BOUNDS = (0.1, 1.0, 10.0)


def test_a_value_is_in_its_bucket_and_all_above() -> None:
    tally = Tally(BOUNDS)
    tally.add(0.5)
    assert tally.totals() == Totals((0, 1, 1, 1), 0.5)


def test_a_bound_belongs_to_its_bucket() -> None:
    tally = Tally(BOUNDS)
    for value in BOUNDS:
        tally.add(value)
    assert tally.totals().buckets == (1, 2, 3, 3)


def test_what_was_seen_stays() -> None:
    tally = Tally(BOUNDS)
    tally.add(99.0)
    assert tally.totals() == tally.totals() == Totals((0, 0, 0, 1), 99.0)
    tally.add(0.0)
    assert tally.totals() == Totals((1, 1, 1, 2), 99.0)


@given(st.lists(st.floats(0, 20), max_size=30))
def test_totals_are_all_values(values: list[float]) -> None:
    tally = Tally(BOUNDS)
    for value in values:
        tally.add(value)
    found = [sum(1 for value in values if bisect_left(BOUNDS, value) == index) for index in range(4)]
    totals = tally.totals()
    assert list(totals.buckets) == list(accumulate(found))
    assert totals.sum == pytest.approx(sum(values))
    assert totals.count == len(values)
