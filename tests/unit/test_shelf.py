import pytest

from deployments.engine.shelf import Shelf
from deployments.errors import OverloadedError
from deployments.guided_types import Receipt


def receipt(key: str) -> Receipt:
    return Receipt(key, "json", "xgrammar", 0.1, 10, is_cached=True)


def filled(max_bytes: int, *keys: str) -> Shelf:
    shelf = Shelf(max_bytes)
    for key in keys:
        assert shelf.reserve(key, 10) == []
        shelf.arrived(key, receipt(key))
    return shelf


def test_what_has_arrived_is_found() -> None:
    shelf = filled(100, "a")
    assert shelf.get("a") == receipt("a")
    assert shelf.get("b") is None
    shelf.reserve("b", 10)
    assert shelf.get("b") is None


def test_the_least_recently_used_goes_first() -> None:
    shelf = filled(30, "a", "b", "c")
    shelf.get("a")
    assert shelf.reserve("d", 15) == ["b", "c"]
    assert shelf.get("b") is None
    assert shelf.get("a") is not None
    assert shelf.size_bytes == 25


def test_what_requests_use_stays() -> None:
    shelf = filled(30, "a", "b", "c")
    shelf.pin("a")
    shelf.pin("b")
    shelf.pin("b")
    shelf.unpin("b")
    with pytest.raises(OverloadedError):
        shelf.reserve("d", 11)
    assert shelf.reserve("d", 10) == ["c"]


def test_who_finds_no_room_leaves_everything_as_it_was() -> None:
    shelf = filled(30, "a", "b", "c")
    shelf.pin("c")
    with pytest.raises(OverloadedError):
        shelf.reserve("d", 21)
    assert shelf.size_bytes == 30
    assert all(shelf.get(key) for key in "abc")


def test_what_is_on_its_way_counts_and_stays() -> None:
    shelf = filled(30, "a")
    assert shelf.reserve("b", 20) == []
    assert shelf.size_bytes == 30
    with pytest.raises(OverloadedError):
        shelf.reserve("c", 20)
    shelf.arrived("b", receipt("b"))
    assert shelf.reserve("c", 20) == ["a", "b"]


def test_what_never_arrived_can_be_taken_off() -> None:
    shelf = filled(30, "a")
    shelf.reserve("b", 20)
    shelf.remove("b")
    assert shelf.size_bytes == 10


def test_one_that_is_larger_than_the_shelf_gets_it_alone() -> None:
    shelf = filled(30, "a", "b")
    assert shelf.reserve("c", 1000) == ["a", "b"]
    shelf.arrived("c", receipt("c"))
    assert shelf.reserve("d", 10) == ["c"]
