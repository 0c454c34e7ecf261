"""Counts of keys: this replica's, the others', and the minute that slides."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from deployments.usage.counters import WINDOW_S, Board, Counts, Ledger, seconds_until_free


@dataclass
class Clock:
    time_s: float = 600.0

    def __call__(self) -> float:
        return self.time_s


def test_requests_of_the_minute_count_at_once() -> None:
    ledger = Ledger(Clock())
    for left in (2, 1, 0):
        ledger.begin("a")
        assert ledger.requests("a", 3).remaining == left
    assert ledger.requests("b", 3).remaining == 3


def test_tokens_count_when_a_request_ends() -> None:
    ledger = Ledger(Clock())
    ledger.begin("a")
    assert ledger.tokens("a", 10).remaining == 10
    ledger.end("a", 25)
    assert ledger.tokens("a", 10).remaining == 0
    assert ledger.total("a").in_flight == 0


def test_the_last_minute_fades() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    for _ in range(10):
        ledger.begin("a")
    clock.time_s += WINDOW_S
    assert ledger.requests("a", 10).remaining == 0
    clock.time_s += WINDOW_S / 2
    assert ledger.requests("a", 10).remaining == 5
    clock.time_s += WINDOW_S
    assert ledger.requests("a", 10).remaining == 10


def test_a_request_that_lasts_for_minutes_stays_in_flight() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    ledger.begin("a")
    clock.time_s += 10 * WINDOW_S
    ledger.report()
    assert ledger.total("a").in_flight == 1
    ledger.end("a", 3)
    assert ledger.total("a").in_flight == 0
    assert ledger.tokens("a", 10).remaining == 7


def test_keys_that_nobody_uses_are_forgotten() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    ledger.begin("a")
    ledger.end("a", 1)
    assert set(ledger.report()) == {"a"}
    clock.time_s += 2 * WINDOW_S
    assert ledger.report() == {}
    assert ledger.own == {}


def test_what_other_replicas_count_counts_here() -> None:
    clock = Clock()
    here, there, third = Ledger(clock), Ledger(clock), Ledger(clock)
    board = Board(stale_after_s=30, now_s=clock)
    for ledger in (there, there, third):
        ledger.begin("a")
    for name, ledger in (("there", there), ("third", third), ("here", here)):
        ledger.learn(board.exchange(name, ledger.report()))
    assert here.total("a").in_flight == 3
    assert here.requests("a", 10).remaining == 7
    here.begin("a")
    assert here.requests("a", 10).remaining == 6
    there.learn(board.exchange("there", there.report()))
    assert there.requests("a", 10).remaining == 7, "its own two and the third's; not yet the one of here"


def test_a_replica_that_is_gone_has_nothing_in_flight_but_has_used_what_it_used() -> None:
    clock = Clock()
    lost, here = Ledger(clock), Ledger(clock)
    board = Board(stale_after_s=30, now_s=clock)
    lost.begin("a")
    board.exchange("lost", lost.report())
    clock.time_s += 31
    here.learn(board.exchange("here", here.report()))
    assert here.total("a").in_flight == 0
    assert here.requests("a", 10).remaining == 9
    clock.time_s += 3 * WINDOW_S
    here.learn(board.exchange("here", here.report()))
    assert here.requests("a", 10).remaining == 10


@given(st.integers(1, 50), st.integers(0, 200), st.integers(0, 200), st.floats(0, 59.9))
def test_when_something_is_free_again(limit: int, current: int, last: int, elapsed_s: float) -> None:
    """Whoever waits as long as is said gets in, if nobody else comes."""
    clock = Clock(600 + elapsed_s)
    ledger = Ledger(clock, own={"a": Counts(10, 0, current, 0, last, 0)})
    allowance = ledger.requests("a", limit)
    if allowance.remaining:
        assert allowance.reset_s == 0
        return
    assert 1 <= allowance.reset_s <= 2 * WINDOW_S
    clock.time_s += allowance.reset_s
    assert ledger.requests("a", limit).remaining >= 1


def test_seconds_are_not_counted_from_the_beginning_of_the_window() -> None:
    assert seconds_until_free(limit=10, current=0, last=20, elapsed_s=0) == 33
    assert seconds_until_free(limit=10, current=0, last=20, elapsed_s=30) == 3


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 9))))
def test_sums_do_not_depend_on_the_order(parts: list[tuple[int, int, int]]) -> None:
    counts = [Counts(minute, 1, requests, tokens) for minute, requests, tokens in parts]
    forward, backward = Counts(), Counts()
    for one in counts:
        forward = forward.plus(one)
    for one in reversed(counts):
        backward = backward.plus(one)
    assert forward == backward
    assert forward.in_flight == len(parts)


@given(st.integers(1, 50), st.integers(0, 200), st.integers(0, 200), st.floats(0, 59.9))
def test_nobody_is_told_to_wait_much_longer_than_it_takes(
    limit: int, current: int, last: int, elapsed_s: float
) -> None:
    clock = Clock(600 + elapsed_s)
    ledger = Ledger(clock, own={"a": Counts(10, 0, current, 0, last, 0)})
    reset_s = ledger.requests("a", limit).reset_s
    if reset_s > 2:
        clock.time_s += reset_s - 2
        assert ledger.requests("a", limit).remaining == 0


def test_counts_of_others_that_are_out_of_touch_fade() -> None:
    clock = Clock()
    ledger = Ledger(clock)
    ledger.begin("a")
    ledger.learn({"a": Counts(10, in_flight=5, requests=7)})
    ledger.lose_touch()
    assert ledger.total("a").in_flight == 1
    assert ledger.requests("a", 10).remaining == 2
    clock.time_s += 3 * WINDOW_S
    assert ledger.requests("a", 10).remaining == 10


def test_a_clock_that_goes_back_loses_nothing() -> None:
    clock = Clock(659.0)
    ledger = Ledger(clock)
    ledger.begin("a")
    clock.time_s = 590.0
    ledger.end("a", 4)
    assert ledger.total("a").in_flight == 0
    assert ledger.tokens("a", 10).remaining == 6
