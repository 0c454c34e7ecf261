"""API keys that are made and revoked over the API. Of each only its hash is kept."""

import logging
import math
import secrets
import time
from collections.abc import Callable
from typing import Any

from config.auth import Key, KeyOptions, digest
from config.instances import first_problem
from deployments.errors import ConflictError, InvalidOptionsError, KeyNotFoundError
from deployments.instance_types import StoredKey
from deployments.instances.store import Store

logger = logging.getLogger("ray.serve")

PREFIXES = {"inference": "sk-", "management": "mgmt-"}
ENTROPY_BYTES = 32
ID_BYTES = 8


class StoredKeys:
    """The stored keys, in memory as well: ingress replicas ask for them all the time.

    One that has expired stays in the list until it is revoked, or until its name or its place is needed.
    `now_s` is Unix time.
    """

    def __init__(self, store: Store, max_keys: int, now_s: Callable[[], float] = time.time) -> None:
        self._store = store
        self._max_keys = max_keys
        self._now_s = now_s
        self._stored: dict[str, StoredKey] = {}
        self._keys: dict[str, Key] = {}
        for stored, sha256 in store.keys():  # noqa: SIM118  (this is no dict)
            self._remember(stored, sha256)

    def create(self, fields: dict[str, Any]) -> tuple[StoredKey, str]:
        """Make a key from the fields of KeyOptions; returns the key itself, too, this once.

        Raises InvalidOptionsError naming the field, ConflictError when the name is taken or there is no room.
        """
        options = read(fields)
        now_s = self._now_s()
        self._make_room(options.name, now_s)
        stored = StoredKey(
            id=secrets.token_hex(ID_BYTES),
            name=options.name,
            kind=options.kind,
            created=int(now_s),
            expires=None if options.expires_in_s is None else math.ceil(now_s + options.expires_in_s),
            instances=None if options.instances is None else tuple(dict.fromkeys(options.instances)),
        )
        key = PREFIXES[options.kind] + secrets.token_urlsafe(ENTROPY_BYTES)
        self._store.insert_key(stored, digest(key))
        self._remember(stored, digest(key))
        logger.info("key %s is made: `%s`, %s", self._keys[stored.id].name, stored.name, stored.kind)
        return stored, key

    def list(self) -> tuple[StoredKey, ...]:
        """Return all stored keys, in the order in which they were made."""
        return tuple(self._stored.values())

    def revoke(self, key_id: str) -> None:
        """Have a key open nothing any more; raises KeyNotFoundError."""
        if key_id not in self._stored:
            raise KeyNotFoundError(f"There is no stored key with the id `{key_id[:128]}`.")
        self._forget(key_id)

    def valid(self) -> tuple[Key, ...]:
        """Return the keys that are good now, for ingress replicas; each is the same object at every call."""
        now_s = self._now_s()
        return tuple(key for key in self._keys.values() if not key.is_expired(now_s))

    def _make_room(self, name: str, now_s: float) -> None:
        expired = [stored for key_id, stored in self._stored.items() if self._keys[key_id].is_expired(now_s)]
        needless = [stored for stored in expired if stored.name == name]
        if not needless:
            if any(stored.name == name for stored in self._stored.values()):
                raise ConflictError(f"There is a stored key `{name}` already.", "name")
            needless = expired[: max(0, len(self._stored) - self._max_keys + 1)]
        if len(self._stored) - len(needless) >= self._max_keys:
            raise ConflictError(f"There are {self._max_keys} stored keys already (max_keys): revoke one first.")
        for stored in needless:
            self._forget(stored.id)

    def _forget(self, key_id: str) -> None:
        self._store.remove_key(key_id)
        key, stored = self._keys.pop(key_id), self._stored.pop(key_id)
        logger.info("key %s is no more: `%s`, %s", key.name, stored.name, stored.kind)

    def _remember(self, stored: StoredKey, sha256: str) -> None:
        self._stored[stored.id] = stored
        self._keys[stored.id] = to_key(stored, sha256)


def read(fields: dict[str, Any]) -> KeyOptions:
    """Check what a key is to be made from; raises InvalidOptionsError naming the field."""
    try:
        return KeyOptions.model_validate(fields, strict=True)
    except ValueError as error:
        field, why = first_problem(error)
        raise InvalidOptionsError(f"`{field}`: {why}" if field else why, field or None) from None


def to_key(stored: StoredKey, sha256: str) -> Key:
    """Return a stored key as the front door knows it.

    Its id stands in the log and in the counts of use, not the name that its owner gave it: that may be the name of a
    configured key, or of a revoked one, whose counts it would share.
    """
    return Key.model_validate(
        {
            "name": f"stored.{stored.id}",
            "kind": stored.kind,
            "sha256": sha256,
            "expires_at_s": stored.expires,
            "instances": stored.instances,
        }
    )
