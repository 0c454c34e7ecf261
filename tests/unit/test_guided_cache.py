"""What is known of constraints: how much is kept, what goes first, what is tried again."""

import pytest

from deployments.guided.cache import OVERHEAD_BYTES, VerdictCache, VocabularyCache, num_bytes_of
from deployments.guided.quarantine import Quarantine
from deployments.guided_types import Compiled, Refused, Vocabulary


def compiled(key: str, num_bytes: int = 0) -> Compiled:
    return Compiled(key, "xgrammar", b"x" * num_bytes, compile_s=0.5, memory_bytes=1)


def vocabulary(fingerprint: str) -> Vocabulary:
    return Vocabulary(fingerprint, "{}", "", vocab_size=10, eos_token_id=1)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_artifacts_messages_and_names_are_counted() -> None:
    assert num_bytes_of(compiled("a", 5000)) == OVERHEAD_BYTES + 5000
    assert num_bytes_of(Refused("a", "é" * 100)) == OVERHEAD_BYTES + 200
    named = Compiled("a", "xgrammar", b"", 0.0, 0, enforced=("type", "enum"), ignored=("not",))
    assert num_bytes_of(named) == OVERHEAD_BYTES + 11


def test_good_and_bad_verdicts_are_kept() -> None:
    cache = VerdictCache(10 * OVERHEAD_BYTES)
    good, bad = compiled("good", 10), Refused("bad", "no")
    cache.put(good)
    cache.put(bad)
    assert (cache.get("good"), cache.get("bad"), cache.get("other")) == (good, bad, None)
    assert cache.num_bytes == num_bytes_of(good) + num_bytes_of(bad)


def test_what_was_not_used_for_the_longest_time_goes_first() -> None:
    cache = VerdictCache(3 * (OVERHEAD_BYTES + 100))
    for key in "abc":
        cache.put(compiled(key, 100))
    cache.get("a")
    cache.put(compiled("d", 100))
    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]
    cache.put(compiled("e", 100 + OVERHEAD_BYTES))
    assert [key for key in "abcde" if cache.get(key)] == ["d", "e"]


def test_what_is_larger_than_the_cache_is_not_kept_and_nothing_goes_for_it() -> None:
    cache = VerdictCache(2 * OVERHEAD_BYTES)
    cache.put(compiled("a"))
    cache.put(compiled("large", 2 * OVERHEAD_BYTES))
    assert cache.get("large") is None
    assert cache.get("a") is not None


def test_a_verdict_that_comes_again_replaces_the_old_one() -> None:
    cache = VerdictCache(4 * OVERHEAD_BYTES)
    cache.put(compiled("a", 100))
    cache.put(Refused("a", "no"))
    assert cache.get("a") == Refused("a", "no")
    assert (len(cache), cache.num_bytes) == (1, num_bytes_of(Refused("a", "no")))
    cache.put(compiled("a", 9 * OVERHEAD_BYTES))  # too large: the old one is wrong by now
    assert (cache.get("a"), cache.num_bytes) == (None, 0)


def test_the_vocabulary_that_was_not_used_for_the_longest_time_goes_first() -> None:
    vocabularies = VocabularyCache(2)
    vocabularies.put(vocabulary("a"))
    vocabularies.put(vocabulary("b"))
    assert vocabularies.get("a") == vocabulary("a")
    vocabularies.put(vocabulary("c"))
    assert [name for name in "abc" if vocabularies.get(name)] == ["a", "c"]
    vocabularies.put(vocabulary("a"))
    vocabularies.put(vocabulary("d"))
    assert [name for name in "acd" if vocabularies.get(name)] == ["a", "d"]


def test_a_quarantined_constraint_is_refused_for_a_while_and_told_how_long() -> None:
    clock = Clock()
    quarantine = Quarantine(600, 10, clock)
    quarantine.put(Refused("a", "It took more than 5 s.", is_costly=True))
    clock.now_s += 0.5
    assert quarantine.get("a") == Refused("a", "It took more than 5 s. It may be tried again in 600 s.", is_costly=True)
    clock.now_s += 599
    assert quarantine.get("a") == Refused("a", "It took more than 5 s. It may be tried again in 1 s.", is_costly=True)
    clock.now_s += 0.5
    assert quarantine.get("a") is None
    assert len(quarantine) == 0


def test_the_first_in_quarantine_is_the_first_to_go() -> None:
    clock = Clock()
    quarantine = Quarantine(600, 2, clock)
    for key in ("a", "b", "a", "c"):
        quarantine.put(Refused(key, "no", is_costly=True))
        clock.now_s += 1
    assert [key for key in "abc" if quarantine.get(key)] == ["a", "c"]
    clock.now_s += 598.5
    assert [key for key in "abc" if quarantine.get(key)] == ["c"]


@pytest.mark.parametrize("key", ["a", "b"])
def test_a_quarantine_of_no_time_refuses_nothing(key: str) -> None:
    quarantine = Quarantine(0, 10, Clock())
    quarantine.put(Refused("a", "no", is_costly=True))
    assert quarantine.get(key) is None
