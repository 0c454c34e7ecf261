"""Instances and API keys in one SQLite file: what was answered is there after a crash of the process or the machine.

One process has it at a time, another one waits or is refused: two managers would undo each other's work.
"""

import contextlib
import dataclasses
import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config.instances import InstanceOptions, first_problem
from deployments.errors import ConflictError, InstanceExistsError, InstanceNotFoundError, StartFailedError
from deployments.instance_types import StoredKey
from deployments.instances.records import Record

logger = logging.getLogger("ray.serve")

SCHEMA_VERSION = 1
SCHEMA = (
    """CREATE TABLE instances (
        id TEXT NOT NULL, name TEXT NOT NULL PRIMARY KEY, created INTEGER NOT NULL, options TEXT NOT NULL,
        command TEXT NOT NULL, wanted TEXT NOT NULL, previous TEXT, previous_command TEXT NOT NULL,
        failure TEXT NOT NULL, num_restarts INTEGER NOT NULL, last_request_s REAL NOT NULL
    ) STRICT""",
    """CREATE TABLE keys (
        id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, created INTEGER NOT NULL,
        expires INTEGER, instances TEXT, sha256 TEXT NOT NULL UNIQUE
    ) STRICT""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
INSTANCE_COLUMNS = tuple(field.name for field in dataclasses.fields(Record))
KEY_COLUMNS = (*(field.name for field in dataclasses.fields(StoredKey)), "sha256")

IN_USE = "another process has it open, such as the server that this one replaces"
NO_STORE = (
    "it is damaged, or no store of this server. With the server stopped, put back a copy of it, or move it away to "
    "begin with no instances and no stored keys; a file of the same name with `-wal` at its end belongs to it"
)


class StoreError(Exception):
    """The store cannot be opened, read or written; the message names the file and what to do."""


class Store:
    """The tables. Every method that changes something returns when it is on the disk; raises StoreError.

    Synchronous, and for one thread.
    """

    def __init__(self, path: Path, wait_s: float = 0.0) -> None:
        """Open the file, or make it; `wait_s`: how long to wait for another process to close it."""
        self._path = path
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)  # SQLite would make it with the umask's mode; its `-wal` gets the same as this
            path.chmod(0o600)
            self._db = sqlite3.connect(path, timeout=wait_s, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Let another process have it; nothing can be called after."""
        self._db.close()

    def instances(self) -> list[Record]:
        """Return all instances, in the order in which they were made.

        One whose options are of another version of this project is there as failed, with no options; so it can be
        updated or deleted. Until then the file keeps what it has.
        """
        with self._explained():
            rows = self._db.execute("SELECT * FROM instances ORDER BY rowid").fetchall()
        records = [to_record(row) for row in rows]
        for row, record in zip(rows, records, strict=True):
            if record.failure != row["failure"]:
                logger.error("instance %s is kept, but cannot run: %s", record.name, record.failure)
        return records

    def find(self, name: str) -> Record | None:
        with self._explained():
            row = self._db.execute("SELECT * FROM instances WHERE name = ?", (storable(name),)).fetchone()
        return None if row is None else to_record(row)

    def insert(self, record: Record) -> None:
        """Add an instance; raises InstanceExistsError."""
        with self._writing():
            if self.find(record.name) is not None:
                raise InstanceExistsError(f"There is an instance `{record.name}` already.")
            self._insert("instances", INSTANCE_COLUMNS, to_row(record))

    def change(self, name: str, **fields: Any) -> Record:
        """Set fields of a Record, all or none; returns the record as it is then.

        Raises InstanceNotFoundError, StartFailedError when it is to run with options that are no longer valid.
        """
        with self._writing():
            before = self.find(name)
            if before is None:
                raise InstanceNotFoundError(f"There is no instance `{name[:128]}`.")
            row = to_row(dataclasses.replace(before, **fields))
            for field in fields:  # the others stay as they are in the file, also where `before` could not show them
                self._db.execute(f"UPDATE instances SET {field} = ? WHERE name = ?", (row[field], storable(name)))
            after = self.find(name)
            assert after is not None
            if after.wanted != fields.get("wanted", after.wanted):
                raise StartFailedError(f"The instance `{name}` cannot be started: {after.failure}")
            return after

    def remove(self, name: str) -> None:
        """Forget an instance; does nothing when there is none."""
        with self._writing():
            self._db.execute("DELETE FROM instances WHERE name = ?", (storable(name),))

    def keys(self) -> list[tuple[StoredKey, str]]:
        """Return all keys, each with its SHA-256 in hexadecimal, in the order in which they were made."""
        with self._explained():
            return [to_key(row) for row in self._db.execute("SELECT * FROM keys ORDER BY rowid")]

    def insert_key(self, key: StoredKey, sha256: str) -> None:
        """Add a key; raises ConflictError when there is one of its id, name or SHA-256."""
        instances = None if key.instances is None else json.dumps(key.instances)
        row = {**dataclasses.asdict(key), "instances": instances, "sha256": sha256}
        with self._writing():
            same = "SELECT 1 FROM keys WHERE id = :id OR name = :name OR sha256 = :sha256"
            if self._db.execute(same, row).fetchone():
                raise ConflictError(f"There is a stored key `{key.name}` already.", "name")
            self._insert("keys", KEY_COLUMNS, row)

    def remove_key(self, key_id: str) -> bool:
        """Forget a key; says whether there was one."""
        with self._writing():
            return self._db.execute("DELETE FROM keys WHERE id = ?", (storable(key_id),)).rowcount > 0

    def _insert(self, table: str, columns: tuple[str, ...], row: dict[str, Any]) -> None:
        values = ", ".join(f":{column}" for column in columns)
        self._db.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})", row)

    def _prepare(self) -> None:
        self._db.row_factory = sqlite3.Row
        # Before WAL is turned on: then its index is in this process's memory, not in a file that processes share, and
        # it works on network file systems. It also keeps every other process out.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        if (found := self._db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise StoreError(f"{self._path}: {NO_STORE} ({found}).")
        with self._writing():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"{self._path}: written by a newer version of this server (schema {version}, this one knows "
                    f"{SCHEMA_VERSION}). Run that version, or move the file away to begin with no instances and keys."
                )
            if not version and self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise StoreError(f"{self._path}: {NO_STORE}.")
            for statement in SCHEMA if not version else ():
                self._db.execute(statement)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Commit what the block does, or nothing of it."""
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says more precisely where it happened
            known = {sqlite3.SQLITE_BUSY: IN_USE, sqlite3.SQLITE_NOTADB: NO_STORE, sqlite3.SQLITE_CORRUPT: NO_STORE}
            raise StoreError(f"{self._path}: {known.get(code, 'cannot be read or written')} ({error}).") from error
        except OSError as error:
            raise StoreError(f"{self._path}: cannot be opened ({error}). See `data_dir` of the gateway.") from error


def to_row(record: Record) -> dict[str, Any]:
    return {
        **{column: storable(getattr(record, column)) for column in INSTANCE_COLUMNS},
        "options": to_json(record.options),
        "previous": None if record.previous is None else to_json(record.previous),
    }


def to_record(row: sqlite3.Row) -> Record:
    fields = dict(row)
    previous, _ = read_options(row["previous"])
    options, problem = read_options(row["options"])
    if options is None:
        failure = f"its stored options are not valid in this version of the server: {problem}. Update or delete it."
        fields |= {"wanted": "stopped", "failure": failure}
    return Record(**{**fields, "options": options or InstanceOptions(), "previous": previous})


def read_options(text: str | None) -> tuple[InstanceOptions | None, str]:
    """Return options as they were given, or None and what is wrong with them."""
    if text is None:
        return None, ""
    try:
        return InstanceOptions.model_validate(json.loads(text)), ""
    except ValueError as error:
        return None, ": ".join(filter(None, first_problem(error)))


def to_json(options: InstanceOptions) -> str:
    """Write what was given of options: what was not follows the defaults of the version that reads it."""
    return json.dumps(options.model_dump(exclude_unset=True))


def to_key(row: sqlite3.Row) -> tuple[StoredKey, str]:
    fields = dict(row)
    sha256 = fields.pop("sha256")
    instances = None if row["instances"] is None else tuple(json.loads(row["instances"]))
    return StoredKey(**{**fields, "instances": instances}), sha256


def storable(value: Any) -> Any:
    """Write lone surrogates, which JSON and logs may hold and SQLite's UTF-8 does not, as escapes."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
