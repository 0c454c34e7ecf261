import pytest

from deployments.engine.shelf import Shelf
from deployments.errors import OverloadedError
from deployments.guided_types import Receipt


def receipt(key: str) -> Receipt:
    return Receipt(key, "json", "xgrammar", 0.1, 10, is_cached=True)


def filled(max_bytes: int, *keys: str) -> Shelf:
    shelf = Shelf(max_bytes)
    for key in keys:
        assert shelf.make_room(10) == []
        shelf.put(key, receipt(key), 10)
    return shelf


def test_what_was_put_is_found() -> None:
    assert filled(100, "a").get("a") == receipt("a")
    assert filled(100, "a").get("b") is None


def test_the_least_recently_used_goes_first() -> None:
    shelf = filled(30, "a", "b", "c")
    shelf.get("a")
    assert shelf.make_room(15) == ["b", "c"]
    assert shelf.get("b") is None
    assert shelf.get("a") is not None


def test_what_requests_use_stays() -> None:
    shelf = filled(30, "a", "b", "c")
    shelf.pin("a")
    shelf.pin("b")
    shelf.pin("b")
    shelf.unpin("b")
    assert shelf.make_room(10) == ["c"]
    with pytest.raises(OverloadedError):
        shelf.make_room(11)
    shelf.unpin("a")
    assert shelf.make_room(20) == ["a"]


def test_one_that_is_larger_than_the_shelf_gets_it_alone() -> None:
    shelf = filled(30, "a", "b")
    assert shelf.make_room(1000) == ["a", "b"]
    shelf.put("c", receipt("c"), 1000)
    assert shelf.get("c") is not None
    assert shelf.make_room(10) == ["c"]


def test_room_that_was_made_counts() -> None:
    shelf = filled(30, "a", "b", "c")
    assert shelf.make_room(10) == ["a"]
    assert shelf.make_room(10) == []
    shelf.put("d", receipt("d"), 10)
    assert shelf.make_room(10) == ["b"]
