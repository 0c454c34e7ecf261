"""Beginnings of prompts and the table of who knows them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.routing.prefixes import Prefix, PrefixTable, to_prefix

BLOCK = 16
MANY = 10**6


def prefix_of(body: bytes, max_bytes: int = MANY) -> Prefix:
    prefix = to_prefix(body, BLOCK, max_bytes)
    assert prefix is not None
    return prefix


def chat(*turns: str, **fields: object) -> bytes:
    messages = [{"role": "user" if n % 2 == 0 else "assistant", "content": turn} for n, turn in enumerate(turns)]
    return json.dumps({"model": "demo", **fields, "messages": messages, "stream": True}).encode()


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[1, 2]", b'{"texts": ["a"]}', b"\xff\x00", b'{"x": "a \\"prompt\\" b"}']
)
def test_without_a_prompt_there_is_no_prefix(body: bytes) -> None:
    assert to_prefix(body, BLOCK, MANY) is None


@pytest.mark.parametrize("key", ["messages", "prompt", "input"])
def test_what_comes_before_the_prompt_does_not_matter(key: str) -> None:
    one = json.dumps({"model": "a", key: "x" * 100}).encode()
    other = json.dumps({"temperature": 0.123, "model": "other", key: "x" * 100}).encode()
    assert prefix_of(one) == prefix_of(other)


def test_messages_win_over_other_keys() -> None:
    body = json.dumps({"prompt": "y" * 50, "messages": "x" * 50}).encode()
    assert prefix_of(body).text.startswith(b'"messages"')


@given(st.lists(st.text(), min_size=2, max_size=6))
def test_the_next_turn_begins_with_all_blocks_but_the_end_of_the_last(turns: list[str]) -> None:
    before, after = prefix_of(chat(*turns[:-1])), prefix_of(chat(*turns))
    shared_bytes = common_bytes(before.text, after.text)
    shared = shared_bytes // BLOCK
    assert before.hashes[:shared] == after.hashes[:shared]
    assert shared_bytes >= len(before.text) - len('], "stream": true}')


def common_bytes(one: bytes, other: bytes) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_hashes_are_equal_as_far_as_the_texts_are(one: bytes, other: bytes) -> None:
    a, b = prefix_of(b'"prompt"' + one), prefix_of(b'"prompt"' + other)
    shared = common_bytes(a.text, b.text) // BLOCK
    assert a.hashes[:shared] == b.hashes[:shared]
    assert all(x != y for x, y in zip(a.hashes[shared:], b.hashes[shared:], strict=False))


@given(st.binary(max_size=300), st.integers(BLOCK, 200))
def test_a_body_that_is_cut_off_has_the_same_beginning(body: bytes, length: int) -> None:
    whole = b'"messages"' + body
    cut, full = prefix_of(whole[: length + 10]), prefix_of(whole)
    assert full.hashes[: len(cut.hashes)] == cut.hashes


@given(st.binary(max_size=300), st.integers(BLOCK, 200))
def test_no_more_than_the_bound_is_looked_at(body: bytes, max_bytes: int) -> None:
    prefix = prefix_of(b'"messages"' + body, max_bytes)
    assert len(prefix.text) <= max_bytes
    assert len(prefix.hashes) == len(prefix.text) // BLOCK


def test_the_start_of_a_prefix() -> None:
    prefix = prefix_of(b'"prompt": "' + b"x" * 50)
    assert prefix.start(1) == prefix.text[:BLOCK]
    assert prefix.start(100) == prefix.text


class TestTable:
    def test_the_longest_known_beginning_wins(self) -> None:
        table = PrefixTable(100, 4)
        table.learn(prefix_of(chat("system" * 10, "ok")), "a")
        table.learn(prefix_of(chat("system" * 10, "ok", "more" * 20)), "b")
        known, holders = table.longest(prefix_of(chat("system" * 10, "ok", "more" * 20, "again")), {"a", "b"})
        assert holders == ["b"]
        assert known > len(prefix_of(chat("system" * 10, "ok")).hashes)

    def test_replicas_that_are_gone_know_nothing(self) -> None:
        table = PrefixTable(100, 4)
        prefix = prefix_of(chat("hello " * 20))
        table.learn(prefix, "gone")
        assert table.longest(prefix, {"a"}) == (0, [])
        assert table.longest(prefix, {"a", "gone"}) == (len(prefix.hashes), ["gone"])

    def test_what_all_know_is_remembered_for_several(self) -> None:
        table = PrefixTable(100, 2)
        prefix = prefix_of(chat("hello " * 20))
        for replica in "abc":
            table.learn(prefix, replica)
        assert sorted(table.longest(prefix, set("abc"))[1]) == ["b", "c"]

    def test_the_end_of_what_was_not_seen_for_longest_is_forgotten_first(self) -> None:
        first, second = prefix_of(chat("a" * 100)), prefix_of(chat("b" * 100))
        table = PrefixTable(len(first.hashes) + len(second.hashes) - 3, 4)
        table.learn(first, "a")
        table.learn(second, "b")
        assert table.longest(second, {"a", "b"}) == (len(second.hashes), ["b"])
        known, holders = table.longest(first, {"a", "b"})
        # Both begin with the same key and role.
        assert holders == ["a"]
        assert known < len(first.hashes)

    @given(st.lists(st.tuples(st.binary(max_size=200), st.sampled_from("abc")), max_size=30), st.integers(1, 40))
    def test_it_is_bounded_and_knows_the_last_prompt_as_far_as_it_fits(
        self, prompts: list[tuple[bytes, str]], bound: int
    ) -> None:
        table = PrefixTable(bound, 4)
        for body, replica in prompts:
            prefix = prefix_of(b'"prompt"' + body)
            table.learn(prefix, replica)
            assert len(table) <= bound
            known, holders = table.longest(prefix, {replica})
            assert known == min(bound, len(prefix.hashes))
            assert holders == ([replica] if known else [])
