"""Metrics that are noted at once and told once a second."""

from collections.abc import Mapping

import pytest

from deployments.reporting import (
    FORGOTTEN_AFTER,
    MAX_SETS,
    REPEATED_EVERY,
    KeptGauge,
    Reported,
    SummedCounter,
    SummedHistogram,
    report_all,
)
from deployments.tally import Totals

Told = list[tuple[float | Totals, dict[str, str]]]


class Teller:
    """What Ray is told: a gauge, a counter or the gauges of a histogram."""

    def __init__(self) -> None:
        self.told: Told = []

    def set(self, value: float | Totals, tags: Mapping[str, str]) -> None:
        self.told.append((value, dict(tags)))

    def inc(self, value: float, tags: dict[str, str]) -> None:
        self.told.append((value, tags))

    def take(self) -> Told:
        told, self.told = sorted(self.told, key=str), []
        return told


def test_a_gauge_keeps_its_last_value_for_each_set_of_tags() -> None:
    teller = Teller()
    gauge = KeptGauge(teller)
    gauge.set(1, {"state": "running"})
    gauge.set(2, {"state": "stopped"})
    gauge.set(3, {"state": "running"})
    gauge.set(4)
    assert teller.take() == []
    for _ in range(2):
        gauge.report()
        assert teller.take() == [(2, {"state": "stopped"}), (3, {"state": "running"}), (4, {})]


def test_a_counter_tells_what_is_new() -> None:
    teller = Teller()
    counter = SummedCounter(teller)
    counter.inc(tags={"route": "a"})
    counter.inc(2, {"route": "a"})
    counter.inc()
    assert teller.take() == []
    counter.report()
    assert teller.take() == [(1.0, {}), (3.0, {"route": "a"})]
    counter.inc(tags={"route": "a"})
    counter.report()
    assert teller.take() == [(1.0, {"route": "a"})]
    counter.report()
    assert teller.take() == []


def test_a_histogram_tells_its_totals_when_they_change_and_now_and_then() -> None:
    teller = Teller()
    histogram = SummedHistogram("seconds", teller, (1.0, 2.0))
    histogram.observe(1.5, {"model": "a"})
    histogram.observe(9.0, {"model": "a"})
    histogram.observe(0.5)
    assert teller.take() == []
    histogram.report()
    first = (Totals((0, 1, 2), 10.5), {"model": "a"})
    assert teller.take() == [first, (Totals((1, 1, 1), 0.5), {})]
    histogram.observe(0.5)
    histogram.report()
    assert teller.take() == [(Totals((2, 2, 2), 1.0), {})]
    told: Told = []
    for _ in range(REPEATED_EVERY):
        histogram.report()
        told += teller.take()
    assert told.count(first) == 1, "Ray forgets a gauge that is not set again"


def of_model(index: int) -> dict[str, str]:
    return {"model": f"m{index}", "layer": "prefill"}


def test_a_histogram_has_no_more_series_than_ray_exports(caplog: pytest.LogCaptureFixture) -> None:
    teller = Teller()
    histogram = SummedHistogram("seconds", teller, (1.0, 2.0))
    num_models = MAX_SETS
    for _ in range(2):
        for index in range(num_models):
            histogram.observe(0.5, of_model(index))
    histogram.report()
    told = teller.take()
    assert len(told) == MAX_SETS // 3
    assert sum(totals.count for totals, _ in told if isinstance(totals, Totals)) == 2 * num_models, "none is lost"
    assert {"model": "other", "layer": "other"} in [tags for _, tags in told]
    assert len(caplog.records) == 1
    assert "seconds" in caplog.text


def test_who_was_silent_for_long_makes_room() -> None:
    teller = Teller()
    histogram = SummedHistogram("seconds", teller, (1.0, 2.0))
    num_models = MAX_SETS // 3 - 1
    for index in range(num_models):
        histogram.observe(0.5, of_model(index))
    for _ in range(FORGOTTEN_AFTER + 1):
        for index in range(1, num_models):
            histogram.observe(0.5, of_model(index))
        histogram.report()
    teller.take()
    histogram.observe(0.5, of_model(num_models))
    histogram.observe(0.5, of_model(num_models + 1))
    for _ in range(REPEATED_EVERY):
        histogram.report()
    tags = [tags for _, tags in teller.take()]
    assert of_model(0) not in tags
    assert of_model(num_models) in tags
    assert of_model(num_models + 1) not in tags
    assert {"model": "other", "layer": "other"} in tags


def test_a_metric_that_fails_hinders_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def report(self) -> None:
            raise ValueError("no")

    teller, failed = Teller(), set[int]()
    gauge = KeptGauge(teller)
    gauge.set(1)
    metrics: list[Reported] = [Failing(), gauge]
    for _ in range(2):
        report_all(metrics, failed)
    assert teller.take() == [(1, {}), (1, {})]
    assert len(caplog.records) == 1
