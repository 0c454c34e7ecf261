"""The choice among replicas, and what a gateway counts as their load."""

import json
import logging
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.routing import RoutingSettings
from deployments.routing import choice
from deployments.routing.choice import Chooser, rendezvous
from deployments.routing.loads import Loads

REPLICAS = ["one", "two", "three"]
IDLE = dict.fromkeys(REPLICAS, 0.0)
SETTINGS = RoutingSettings(
    bytes_per_request=50, imbalance_requests=4, session_imbalance_requests=20, imbalance_ratio=1.5
)
loads_of_replicas = st.dictionaries(st.text(min_size=1), st.floats(0, 1000), min_size=1, max_size=8)


def chat(*turns: str) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": turn} for turn in turns]}).encode()


def conversation(number: int, turns: int) -> bytes:
    return chat(*(f"conversation {number}, turn {turn}, and what it says: {'x' * 200}" for turn in range(turns)))


@given(loads_of_replicas, st.binary(), st.binary(max_size=50))
def test_every_replica_is_ranked_once(loads: dict[str, float], body: bytes, session: bytes) -> None:
    chooser = Chooser(SETTINGS)
    for text in (body, b'"prompt"' + body):
        ranked = chooser.rank(loads, text, session)
        assert sorted(ranked) == sorted(loads)
        assert [loads[each] for each in ranked[1:]] == sorted(loads[each] for each in ranked[1:])


@given(loads_of_replicas)
def test_without_prompt_and_session_the_least_busy_is_first(loads: dict[str, float]) -> None:
    assert loads[Chooser(SETTINGS).rank(loads)[0]] == min(loads.values())


@given(loads_of_replicas, st.binary(min_size=1, max_size=50), st.binary())
def test_the_chosen_one_is_never_too_busy(loads: dict[str, float], session: bytes, prompt: bytes) -> None:
    chooser, least = Chooser(SETTINGS), min(loads.values())
    for name in loads:  # whoever knows it
        chooser.rank({name: 0}, b'"prompt"' + prompt)
        assert loads[chooser.rank(loads, b'"prompt"' + prompt)[0]] <= max(least + 4, least * 1.5)
        assert loads[chooser.rank(loads, session=session)[0]] <= max(least + 20, least * 1.5)


def test_a_conversation_stays_where_it_began() -> None:
    chooser = Chooser(SETTINGS)
    for number in range(20):
        first = chooser.rank(IDLE, conversation(number, 1))[0]
        busy = IDLE | {first: 4.0}
        assert [chooser.rank(busy, conversation(number, turns))[0] for turns in range(2, 6)] == [first] * 4


def test_a_conversation_leaves_a_replica_that_is_too_busy_and_stays_where_it_went() -> None:
    chooser = Chooser(SETTINGS)
    first = chooser.rank(IDLE, conversation(1, 1))[0]
    second = chooser.rank(IDLE | {first: 5.0}, conversation(1, 2))[0]
    assert second != first
    assert chooser.rank(IDLE, conversation(1, 3))[0] == second


def test_a_short_beginning_does_not_make_up_for_more_requests() -> None:
    chooser = Chooser(RoutingSettings(bytes_per_request=512))
    system = "You are a helpful assistant of everybody. " * 10  # less than a request is worth
    first = chooser.rank(IDLE, chat(system, "hello"))[0]
    assert chooser.rank(IDLE, chat(system, "something else"))[0] == first
    assert chooser.rank(IDLE | {first: 2.0}, chat(system, "something else"))[0] != first


def test_users_of_one_system_prompt_are_spread() -> None:
    chooser = Chooser(RoutingSettings())
    loads = dict(IDLE)
    for number in range(12):
        loads[chooser.rank(loads, chat("You are helpful. " * 60, f"question {number}"))[0]] += 1
    assert min(loads.values()) >= 2


def test_many_requests_are_too_many_only_by_ratio() -> None:
    chooser = Chooser(RoutingSettings(bytes_per_request=1, imbalance_requests=4))
    first = chooser.rank(IDLE, conversation(1, 1))[0]
    everybody_busy = dict.fromkeys(REPLICAS, 100.0) | {first: 120.0}
    assert chooser.rank(everybody_busy, conversation(1, 2))[0] == first


def test_cold_prompts_are_spread_and_chosen_alike_by_all_gateways() -> None:
    gateways = [Chooser(SETTINGS) for _ in range(3)]
    counts: Counter[str] = Counter()
    for number in range(300):
        prompt = json.dumps({"prompt": f"{number}: a text of its own"}).encode()
        (chosen,) = {gateway.rank(IDLE, prompt)[0] for gateway in gateways}
        counts[chosen] += 1
    assert min(counts[replica] for replica in REPLICAS) > 50


def test_a_cold_prompt_goes_to_one_of_the_least_busy() -> None:
    loads = {"one": 5.0, "two": 1.0, "three": 3.0}
    assert {Chooser(SETTINGS).rank(loads, conversation(number, 1))[0] for number in range(50)} == {"two"}


def test_a_system_prompt_that_all_know_is_no_reason_to_choose_the_busier_one() -> None:
    chooser = Chooser(SETTINGS)
    system = "You are a helpful assistant. " * 20
    for replica in REPLICAS:
        chooser.rank({replica: 0.0}, chat(system, "hello"))
    assert chooser.rank({"one": 4.0, "two": 3.0, "three": 1.0}, chat(system, "something else"))[0] == "three"


def test_sessions_stay_move_when_their_replica_is_gone_and_come_back_when_it_has_time() -> None:
    chooser = Chooser(SETTINGS)
    for number in range(50):
        session = f"session-{number}".encode()
        home, *_ = chooser.rank(IDLE, conversation(number, 1), session)
        assert chooser.rank(IDLE | {home: 20.0}, conversation(number, 2), session)[0] == home
        assert chooser.rank(IDLE | {home: 21.0}, conversation(number, 3), session)[0] != home
        assert chooser.rank({name: 0.0 for name in REPLICAS if name != home}, b"", session)[0] != home
        assert chooser.rank(IDLE, conversation(number, 4), session)[0] == home


@given(st.binary(), st.lists(st.text(), unique=True, min_size=2), st.data())
def test_when_a_replica_goes_only_its_own_keys_move(key: bytes, replicas: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(replicas))
    before, after = rendezvous(key, replicas), rendezvous(key, [name for name in replicas if name != gone])
    assert [name for name in before if name != gone] == after


def test_keys_are_ordered_alike_in_every_process() -> None:
    """Python's own hash is another one in each process; this order must not change from release to release."""
    assert rendezvous(b"key", ["a", "b", "c", "d"]) == rendezvous(b"key", ["d", "c", "b", "a"]) == EXPECTED


EXPECTED = ["a", "c", "d", "b"]


def test_a_fault_inside_leaves_the_choice_to_the_load(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(choice, "to_prefix", fail)
    monkeypatch.setattr(choice, "logger", logging.getLogger("a log that pytest sees once"))
    chooser = Chooser(SETTINGS)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            assert chooser.rank({"one": 2.0, "two": 1.0}, conversation(1, 1), b"session") == ["two", "one"]
    assert len(caplog.records) == 1


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class TestLoads:
    def test_requests_under_way_count_until_they_end(self) -> None:
        loads = Loads(2.0, Clock())
        loads.keep(["a"])
        for _ in range(3):
            loads.choose("a")
            assert loads.of("a", 0) > 0
            loads.send("a")
        assert loads.of("a", 0) == 3
        loads.end("a")
        assert loads.of("a", 0) == 2

    def test_what_a_replica_says_counts_when_it_is_more(self) -> None:
        loads = Loads(2.0, Clock())
        loads.keep(["a"])
        loads.choose("a")
        loads.send("a")
        assert loads.of("a", 7) == 7
        assert loads.of("a", 0) == 1

    def test_a_choice_that_nobody_sends_fades(self) -> None:
        clock = Clock()
        loads = Loads(2.0, clock)
        loads.keep(["a"])
        loads.choose("a")
        loads.choose("a")
        clock.now_s += 2
        assert loads.of("a", 5) == pytest.approx(6)
        clock.now_s += 1000
        assert loads.of("a", 5) == pytest.approx(5)

    def test_replicas_that_are_gone_are_forgotten(self) -> None:
        loads = Loads(2.0, Clock())
        loads.keep(["a", "b"])
        loads.choose("a")
        loads.send("a")
        loads.keep(["b"])
        loads.choose("a")
        loads.send("a")
        loads.end("a")
        assert loads.of("a", 0) == 0
        loads.keep(["a", "b"])
        assert loads.of("a", 0) == 0

    @given(st.lists(st.sampled_from(["choose", "send", "end"])))
    def test_no_order_of_events_makes_a_load_negative(self, events: list[str]) -> None:
        loads = Loads(2.0, Clock())
        loads.keep(["a"])
        for event in events:
            getattr(loads, event)("a")
            assert loads.of("a", 0) >= 0
