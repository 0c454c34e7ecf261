"""The keys that open the server: configured ones, which stay, and stored ones, which come and go."""

import hashlib
import time
from collections.abc import Callable, Iterable

from config.auth import AuthSettings, Key, KeyLimits


class KeyRing:
    """Finds whose key a request has.

    The server is open when no inference key is configured, whatever is stored. That was checked at its start together
    with the address it listens on. Were it closed by the first stored key, clients that need none today would be shut
    out by it, and the server would be open again, unasked, when the last stored key expires.

    `now_s` is Unix time.
    """

    def __init__(self, auth: AuthSettings, now_s: Callable[[], float] = time.time) -> None:
        self.is_open = not auth.has("inference")
        self._auth = auth
        self._now_s = now_s
        self._configured = {key.sha256: key for key in auth.keys}
        self._keys = self._configured

    def learn(self, keys: Iterable[Key]) -> None:
        """Take these as the stored keys, in place of those known so far."""
        self._keys = {key.sha256: key for key in keys} | self._configured

    def find(self, given: bytes) -> Key | None:
        """Return the key that was given, None when nobody has it, or has it no more."""
        # The time of a look-up says nothing about a key that nearly fits. Digests that are alike have hashes that are
        # not (SipHash, with a secret of this process), and two digests are compared only when their hashes are equal.
        # A constant-time comparison with each of thousands of stored keys would cost every request milliseconds.
        key = self._keys.get(hashlib.sha256(given).hexdigest())
        return None if key is None or key.is_expired(self._now_s()) else key

    def limits_of(self, key: Key) -> KeyLimits:
        return self._auth.limits_of(key)
