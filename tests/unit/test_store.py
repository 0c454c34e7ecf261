"""What is stored is there afterwards, whatever happens to the process; what cannot be read is explained."""

import dataclasses
import json
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.instances import InstanceOptions
from config.models import PROJECT_ROOT
from deployments.errors import ConflictError, InstanceExistsError, InstanceNotFoundError, StartFailedError
from deployments.instance_types import StoredKey
from deployments.instances.records import Record
from deployments.instances.store import INSTANCE_COLUMNS, Store, StoreError

DEADLINE_S = 60
OPTIONS = InstanceOptions(backend_type="fake", backend_options={"a": [1, None, 2.5, {"b": "ü"}]}, idle_timeout=0)
RECORD = Record("id-1", "one", 1_700_000_000, OPTIONS, "vllm serve m")
KEY = StoredKey("k1", "team-a", "inference", 1_700_000_000, None, None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "instances.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = Store(path)
    yield store
    store.close()


def reopened(store: Store, path: Path) -> Store:
    store.close()
    return Store(path)


def edit(path: Path, statement: str, *values: Any) -> None:
    """Change a file that no server has open."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(statement, values)
    db.close()


def test_an_instance_comes_back_as_it_was(store: Store, path: Path) -> None:
    store.insert(RECORD)
    store = reopened(store, path)
    assert store.instances() == [RECORD]
    assert store.find("one") == RECORD
    assert store.find("two") is None
    (record,) = store.instances()
    assert record.options.model_fields_set == OPTIONS.model_fields_set
    store.close()


def test_only_what_was_given_is_kept(store: Store, path: Path) -> None:
    """So a new default of a later version holds for it, too."""
    store.insert(dataclasses.replace(RECORD, options=InstanceOptions(max_restarts=3)))
    store.close()
    db = sqlite3.connect(path)
    assert json.loads(db.execute("SELECT options FROM instances").fetchone()[0]) == {"max_restarts": 3}
    db.close()


def test_every_field_of_a_record_has_a_column(store: Store) -> None:
    full = dataclasses.replace(
        RECORD,
        wanted="running",
        previous=InstanceOptions(group="g"),
        previous_command="old",
        failure="why",
        num_restarts=2,
        last_request_s=1.5,
    )
    store.insert(full)
    assert store.instances() == [full]
    changed = dataclasses.replace(full, previous=None, previous_command="", failure="", num_restarts=0)
    fields = {name: getattr(changed, name) for name in INSTANCE_COLUMNS}
    assert store.change(**fields) == changed
    assert store.find("one") == changed


def test_instances_are_in_the_order_in_which_they_were_made(store: Store) -> None:
    for name in ("c", "a", "b"):
        store.insert(dataclasses.replace(RECORD, name=name))
    store.change("c", wanted="running")
    assert [record.name for record in store.instances()] == ["c", "a", "b"]


def test_a_name_is_taken_once(store: Store) -> None:
    store.insert(RECORD)
    with pytest.raises(InstanceExistsError, match="`one`"):
        store.insert(dataclasses.replace(RECORD, id="id-2"))
    assert store.instances() == [RECORD]


def test_a_change_that_is_wrong_changes_nothing(store: Store) -> None:
    store.insert(RECORD)
    with pytest.raises(TypeError):
        store.change("one", wanted="running", no_such_field=1)
    with pytest.raises(StoreError, match="cannot store TEXT"):
        store.change("one", wanted="running", num_restarts="many")
    with pytest.raises(InstanceNotFoundError, match="`two`"):
        store.change("two", wanted="running")
    assert store.instances() == [RECORD]


def test_an_instance_is_removed(store: Store) -> None:
    store.insert(RECORD)
    store.remove("one")
    store.remove("one")
    assert store.instances() == []
    store.insert(RECORD)


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "'; DROP TABLE instances; --", "模型 \U0001f600", "x" * 10**6])
def test_any_text_is_kept(store: Store, text: str) -> None:
    odd = dataclasses.replace(
        RECORD, failure=text, command=text, options=InstanceOptions(backend_options={text: [text, float("inf")]})
    )
    store.insert(odd)
    (record,) = store.instances()
    assert record.options == odd.options
    assert record.failure == text.encode(errors="backslashreplace").decode()
    for name in (text, "one' OR ''='"):
        assert store.find(name) is None
        store.remove(name)
        assert not store.remove_key(name)
    assert len(store.instances()) == 1


def test_keys_come_back_as_they_were(store: Store, path: Path) -> None:
    other = StoredKey("k2", "team-b", "inference", 5, 10**11, ("a", "b"))
    store.insert_key(KEY, "0" * 64)
    store.insert_key(other, "1" * 64)
    store = reopened(store, path)
    assert store.keys() == [(KEY, "0" * 64), (other, "1" * 64)]
    assert store.remove_key("k1")
    assert not store.remove_key("k1")
    assert store.keys() == [(other, "1" * 64)]
    store.close()


@pytest.mark.parametrize("changes", [{"id": "k1"}, {"name": "team-a"}, {}])
def test_no_two_keys_are_the_same(store: Store, changes: dict[str, Any]) -> None:
    store.insert_key(KEY, "0" * 64)
    fields: dict[str, Any] = {"id": "k2", "name": "team-b", **changes}
    other = dataclasses.replace(KEY, **fields)
    with pytest.raises(ConflictError):
        store.insert_key(other, "1" * 64 if changes else "0" * 64)
    assert store.keys() == [(KEY, "0" * 64)]


def test_only_its_owner_reads_the_file(store: Store, path: Path) -> None:
    store.insert(RECORD)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_a_copy_that_others_could_read_is_closed_to_them(store: Store, path: Path) -> None:
    store.close()
    path.chmod(0o644)
    Store(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_change_is_forced_to_the_disk(store: Store) -> None:
    """A test cannot cut the power; these are the settings that SQLite needs for it."""
    assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert store._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ('{"of_a_later_version": "hf_secret"}', "of_a_later_version"),
        ('{"max_restarts": -1}', "max_restarts"),
        ('{"environment": {"A": {"hf_secret": 1}}}', "environment"),
        ('{"max_restarts": ', "Expecting value"),
        ("[]", "valid dictionary"),
    ],
)
def test_an_instance_of_another_version_stays_and_has_failed(
    store: Store, path: Path, caplog: pytest.LogCaptureFixture, options: str, words: str
) -> None:
    store.insert(dataclasses.replace(RECORD, wanted="running"))
    store.insert(dataclasses.replace(RECORD, name="two"))
    store.close()
    edit(path, "UPDATE instances SET options = ? WHERE name = 'one'", options)
    store = Store(path)
    with caplog.at_level("ERROR"):
        one, two = store.instances()
    assert two == dataclasses.replace(RECORD, name="two")
    assert (one.wanted, one.options) == ("stopped", InstanceOptions())
    assert words in one.failure
    assert one.failure in caplog.text
    assert "hf_secret" not in caplog.text
    with pytest.raises(StartFailedError, match="`one` cannot be started"):
        store.change("one", wanted="running", failure="")
    assert store.change("one", last_request_s=5.0).failure == one.failure
    store.close()
    db = sqlite3.connect(path)
    assert db.execute("SELECT options FROM instances WHERE name = 'one'").fetchone()[0] == options
    db.close()


def test_an_instance_of_another_version_works_again_with_new_options(store: Store, path: Path) -> None:
    store.insert(RECORD)
    store.close()
    edit(path, "UPDATE instances SET options = '{\"x\": 1}', previous = '{\"x\": 1}'")
    store = Store(path)
    assert store.change("one", options=OPTIONS, wanted="running") == dataclasses.replace(RECORD, wanted="running")
    store.close()


@pytest.mark.parametrize("damage", ["text", "torn", "header", "page"])
def test_a_damaged_file_is_named_and_left_alone(store: Store, path: Path, damage: str) -> None:
    for number in range(200):
        store.insert(dataclasses.replace(RECORD, name=f"{number}"))
    store.close()
    whole = path.read_bytes()
    page = len(whole) // 2
    broken = {
        "text": b"instances: {}\n" * 100,
        "torn": whole[: len(whole) // 2],
        "header": b"\0" * 100 + whole[100:],
        "page": whole[:page] + b"\xff" * 4096 + whole[page + 4096 :],
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(StoreError, match=r"damaged, or no store of this server.*put back a copy") as caught:
        Store(path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == broken


def test_a_database_of_something_else_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    edit(path, "CREATE TABLE instances (a)")
    with pytest.raises(StoreError, match="no store of this server"):
        Store(path)
    db = sqlite3.connect(path)
    assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("instances",)]
    db.close()


def test_a_file_of_a_newer_version_is_named_and_left_alone(store: Store, path: Path) -> None:
    store.insert(RECORD)
    store.close()
    edit(path, "PRAGMA user_version = 2")
    with pytest.raises(StoreError, match=r"newer version.*schema 2.*knows 1") as caught:
        Store(path)
    assert str(path) in str(caught.value)
    edit(path, "PRAGMA user_version = 1")
    store = Store(path)
    assert store.instances() == [RECORD]
    store.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be opened.*data_dir"):
        Store(tmp_path / "file" / "instances.db")


def test_a_full_disk_refuses_a_change_and_nothing_else(store: Store) -> None:
    store.insert(RECORD)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="disk is full"):
        store.insert(dataclasses.replace(RECORD, name="two", command="x" * 10**6))
    assert store.instances() == [RECORD]
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.insert(dataclasses.replace(RECORD, name="two", command="x" * 10**6))
    assert len(store.instances()) == 2


HOLDER = """
import sys
from pathlib import Path
from deployments.instances.store import Store
store = Store(Path(sys.argv[1]))
print("has it", flush=True)
sys.stdin.read()
"""


def start(program: str, path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        cwd=PROJECT_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_one_process_has_it_and_the_next_one_waits_for_it(path: Path) -> None:
    opened: list[list[Record]] = []

    def wait() -> None:
        store = Store(path, wait_s=DEADLINE_S)
        opened.append(store.instances())
        store.close()

    with start(HOLDER, path) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdin is not None
            holder.stdout.readline()
            with pytest.raises(StoreError, match="another process has it open"):
                Store(path)
            waiting = threading.Thread(target=wait)
            waiting.start()
            holder.stdin.close()
            waiting.join(DEADLINE_S)
        finally:
            holder.kill()
    assert opened == [[]]


WRITER = """
import itertools, sys
from pathlib import Path
from config.instances import InstanceOptions
from deployments.instance_types import StoredKey
from deployments.instances.records import Record
from deployments.instances.store import Store
store = Store(Path(sys.argv[1]))
numbers = [record.created for record in store.instances()] + [key.created for key, _ in store.keys()]
for number in itertools.count(max(numbers, default=-1) + 1):
    name = f"i{number}"
    store.insert(Record(name, name, number, InstanceOptions(group=name), "c" * (number % 7 * 3000)))
    print("insert", number, flush=True)
    store.change(name, wanted="running", previous=InstanceOptions(), num_restarts=number)
    print("change", number, flush=True)
    store.insert_key(StoredKey(name, name, "inference", number, None, (name,)), f"{number:064}")
    print("key", number, flush=True)
    if number % 5 == 4:
        store.remove(f"i{number - 2}")
        print("remove", number - 2, flush=True)
"""


@pytest.mark.parametrize("seed", range(6))
def test_what_a_process_reported_before_it_was_killed_is_there(path: Path, seed: int) -> None:
    """The same file is killed twice: the second time while it holds what the first one left behind."""
    luck = random.Random(seed)
    for _ in range(2):
        reported = killed_writer(path, luck.randrange(1, 120))
        store = Store(path)
        records = {record.created: record for record in store.instances()}
        keys = {key.created for key, _ in store.keys()}  # noqa: SIM118  (this is no dict)
        store.close()
        removed = {number for what, number in reported if what == "remove"}
        # The next removal may have been stored and not yet reported.
        removable = removed | {number - 2 for what, number in reported if what == "key" and number % 5 == 4}
        assert not removed & records.keys()
        assert {number for what, number in reported if what == "key"} <= keys
        assert {number for what, number in reported if what == "insert"} - removable <= records.keys()
        for number in {number for what, number in reported if what == "change"} - removable:
            assert (records[number].wanted, records[number].num_restarts) == ("running", number)


def killed_writer(path: Path, lines: int) -> list[tuple[str, int]]:
    """Kill a writer, while it writes, once it has reported so much; returns all that it reported."""
    with start(WRITER, path) as writer:
        assert writer.stdout is not None
        read = [writer.stdout.readline() for _ in range(lines)]
        writer.kill()
        assert all(read)
        read += writer.stdout.readlines()
    return [(line.split()[0], int(line.split()[1])) for line in read if line.endswith("\n")]
