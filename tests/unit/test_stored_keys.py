"""Keys that are made over the API: checked, kept as hashes, good until they expire or are revoked."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.auth import digest
from deployments.errors import ConflictError, InvalidOptionsError, KeyNotFoundError
from deployments.instances.store import Store, StoreError
from deployments.instances.stored_keys import StoredKeys


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_700_000_000.5

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "data" / "instances.db")
    yield store
    store.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(store: Store, clock: Clock) -> StoredKeys:
    return StoredKeys(store, 3, clock)


def names(keys: StoredKeys) -> list[str]:
    return [stored.name for stored in keys.list()]


def test_a_key_is_made_and_known_by_its_hash(keys: StoredKeys) -> None:
    stored, key = keys.create({"name": "team-a"})
    assert key.startswith("sk-")
    assert len(key) >= 43
    assert (stored.name, stored.kind, stored.created) == ("team-a", "inference", 1_700_000_000)
    assert (stored.expires, stored.instances) == (None, None)
    assert keys.list() == (stored,)
    (good,) = keys.valid()
    assert (good.name, good.kind, good.sha256) == (f"stored.{stored.id}", "inference", digest(key))
    assert good.limits is None


def test_every_field(keys: StoredKeys) -> None:
    stored, _ = keys.create(
        {"name": "x", "kind": "inference", "expires_in_s": 60, "instances": ["b", "a", "b", "not-yet-there"]}
    )
    assert (stored.expires, stored.instances) == (1_700_000_061, ("b", "a", "not-yet-there"))
    (good,) = keys.valid()
    assert good.expires_at_s == stored.expires
    assert good.instances == frozenset({"a", "b", "not-yet-there"})
    management, key = keys.create({"name": "m", "kind": "management", "expires_in_s": None, "instances": None})
    assert management.kind == "management"
    assert key.startswith("mgmt-")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "../../etc"}, "name"),
        ({"name": "x" * 51}, "name"),
        ({"name": "ключ"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"name": None}, "name"),
        ({"name": ["a"]}, "name"),
        ({"kind": "root"}, "kind"),
        ({"kind": "Management"}, "kind"),
        ({"kind": None}, "kind"),
        ({"kind": ["management"]}, "kind"),
        ({"expires_in_s": 0}, "expires_in_s"),
        ({"expires_in_s": -1}, "expires_in_s"),
        ({"expires_in_s": True}, "expires_in_s"),
        ({"expires_in_s": 60.0}, "expires_in_s"),
        ({"expires_in_s": "60"}, "expires_in_s"),
        ({"expires_in_s": float("nan")}, "expires_in_s"),
        ({"expires_in_s": float("inf")}, "expires_in_s"),
        ({"expires_in_s": 2**63}, "expires_in_s"),
        ({"expires_in_s": 10**5000}, "expires_in_s"),
        ({"instances": []}, "instances"),
        ({"instances": "demo"}, "instances"),
        ({"instances": {"demo": 1}}, "instances"),
        ({"instances": ["demo", 5]}, "instances.1"),
        ({"instances": ["demo/x"]}, "instances.0"),
        ({"instances": [["demo"]]}, "instances.0"),
        ({"instances": ["a"] * 1001}, "instances"),
        ({"kind": "management", "instances": ["demo"]}, "instances"),
        ({"instances": ["demo"], "kind": "management"}, "instances"),
        ({"expires": 5}, "expires"),
        ({"sha256": "0" * 64}, "sha256"),
        ({"key": "sk-secret-0123456789"}, "key"),
        ({"id": "mine"}, "id"),
        ({"limits": {}}, "limits"),
        ({"x" * 10**6: 1}, "x" * 128),
        ({"\ud800": 1}, None),
        ({"": 1}, None),
    ],
)
def test_what_is_wrong_is_named_and_makes_no_key(keys: StoredKeys, fields: dict[str, Any], field: str | None) -> None:
    given = fields if "name" in fields or not fields else {"name": "a", **fields}
    with pytest.raises(InvalidOptionsError) as caught:
        keys.create(given)
    assert caught.value.param == field
    assert field is None or field in caught.value.message
    assert len(caught.value.message) < 500
    assert "sk-secret" not in caught.value.message
    assert keys.list() == ()


@pytest.mark.parametrize("body", [[], "name", None, 5])
def test_a_body_that_is_no_object_is_refused(keys: StoredKeys, body: Any) -> None:
    with pytest.raises(InvalidOptionsError):
        keys.create(body)


def test_a_name_is_taken_once_and_free_again_when_its_key_is_gone(keys: StoredKeys, clock: Clock) -> None:
    first, _ = keys.create({"name": "a", "expires_in_s": 10})
    with pytest.raises(ConflictError, match="`a`") as caught:
        keys.create({"name": "a"})
    assert caught.value.param == "name"
    clock.now_s += 11
    assert keys.valid() == ()
    assert keys.list() == (first,)
    second, _ = keys.create({"name": "a"})
    assert keys.list() == (second,)
    keys.revoke(second.id)
    third, _ = keys.create({"name": "a"})
    assert len({first.id, second.id, third.id}) == 3


def test_a_full_store_gives_up_expired_keys_only(keys: StoredKeys, clock: Clock) -> None:
    keys.create({"name": "a"})
    keys.create({"name": "b", "expires_in_s": 10})
    keys.create({"name": "c", "expires_in_s": 10})
    with pytest.raises(ConflictError, match=r"3 stored keys already \(max_keys\)"):
        keys.create({"name": "d"})
    clock.now_s += 11
    with pytest.raises(ConflictError, match="`a`"):
        keys.create({"name": "a"})
    assert names(keys) == ["a", "b", "c"]
    keys.create({"name": "d"})
    assert names(keys) == ["a", "c", "d"]


def test_a_lowered_bound_holds_for_new_keys(keys: StoredKeys, store: Store, clock: Clock) -> None:
    for name in ("a", "b"):
        keys.create({"name": name, "expires_in_s": 10})
    keys.create({"name": "c"})
    fewer = StoredKeys(store, 1, clock)
    with pytest.raises(ConflictError, match="1 stored keys"):
        fewer.create({"name": "d"})
    clock.now_s += 11
    with pytest.raises(ConflictError, match="1 stored keys"):
        fewer.create({"name": "d"})
    assert names(fewer) == ["a", "b", "c"]


def test_a_key_is_good_until_it_expires(keys: StoredKeys, clock: Clock) -> None:
    stored, _ = keys.create({"name": "a", "expires_in_s": 1})
    clock.now_s += 1
    assert len(keys.valid()) == 1
    assert stored.expires is not None
    clock.now_s = stored.expires
    assert keys.valid() == ()


def test_a_revoked_key_is_gone(keys: StoredKeys, store: Store, clock: Clock) -> None:
    one, _ = keys.create({"name": "a"})
    two, _ = keys.create({"name": "b"})
    keys.revoke(one.id)
    assert keys.list() == (two,)
    assert [key.name for key in keys.valid()] == [f"stored.{two.id}"]
    assert StoredKeys(store, 3, clock).list() == (two,)


@pytest.mark.parametrize("key_id", ["", "a", "../a", "' OR 1=1 --", "x" * 10**6, "\ud800", "stored.a"])
def test_a_key_that_is_not_there_is_not_found(keys: StoredKeys, key_id: str) -> None:
    keys.create({"name": "a"})
    with pytest.raises(KeyNotFoundError) as caught:
        keys.revoke(key_id)
    assert len(caught.value.message) < 500
    assert names(keys) == ["a"]


def test_keys_outlive_the_process(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "keys.db"
    store = Store(path)
    keys = StoredKeys(store, 3, clock)
    keys.create({"name": "a", "instances": ["demo"], "expires_in_s": 5})
    keys.create({"name": "m", "kind": "management"})
    store.close()
    store = Store(path)
    again = StoredKeys(store, 3, clock)
    assert again.list() == keys.list()
    assert again.valid() == keys.valid()
    with pytest.raises(ConflictError):
        again.create({"name": "a"})
    store.close()


def test_the_key_itself_is_nowhere(
    keys: StoredKeys, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        stored, key = keys.create({"name": "team-a"})
        keys.revoke(stored.id)
        _, other = keys.create({"name": "team-b"})
    files = b"".join(file.read_bytes() for file in (tmp_path / "data").iterdir())
    for one in (key, other):
        assert one.encode() not in files
        assert one.removeprefix("sk-").encode() not in files
        assert one not in caplog.text + repr(keys.list())
    assert f"stored.{stored.id} is made: `team-a`" in caplog.text
    assert f"stored.{stored.id} is no more: `team-a`" in caplog.text


def test_a_key_that_could_not_be_stored_is_not_good(keys: StoredKeys, store: Store) -> None:
    stored, _ = keys.create({"name": "a"})
    store._db.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        keys.create({"name": "b"})
    with pytest.raises(StoreError):
        keys.revoke(stored.id)
    assert keys.list() == (stored,)
    assert len(keys.valid()) == 1
    store._db.execute("PRAGMA query_only = OFF")
    keys.create({"name": "b"})
    assert names(keys) == ["a", "b"]


def test_the_same_keys_are_the_same_objects(keys: StoredKeys) -> None:
    """Comparing a snapshot of thousands with the last one then costs next to nothing."""
    keys.create({"name": "a"})
    assert keys.valid()[0] is keys.valid()[0]
