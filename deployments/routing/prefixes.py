"""Beginnings of prompts, read from raw request bodies without parsing them, and which replicas know them."""

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

SESSION_HEADER = b"x-session-id"
"""A client's name for a conversation; also what Serve's RAY_SERVE_SESSION_ID_HEADER_KEY is by default."""
PROMPT_KEYS = (b'"messages"', b'"prompt"', b'"input"')
"""Keys after which a body's prompt stands, in the order in which they are looked for.

A quotation mark within a JSON text has a backslash before it, so a text that a user wrote is never taken for a key.
"""


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a prompt."""

    text: bytes
    """From the prompt's key on, as the client wrote it."""
    block_bytes: int
    hashes: tuple[int, ...]
    """One for each full block: of it and all blocks before it. Only this process knows what they mean."""

    def start(self, num_blocks: int) -> bytes:
        """Return the first blocks; all of the text when it has no more."""
        return self.text[: num_blocks * self.block_bytes]


def to_prefix(body: bytes, block_bytes: int, max_bytes: int) -> Prefix | None:
    """Cut the prompt of a request's body, which may be cut off anywhere, into blocks; None when there is no prompt."""
    starts = (body.find(key) for key in PROMPT_KEYS)
    start = next((start for start in starts if start >= 0), None)
    if start is None:
        return None
    text = body[start : start + max_bytes]
    hashes: list[int] = []
    chained = 0
    for end in range(block_bytes, len(text) + 1, block_bytes):
        # Python's own hash is keyed anew in each process: nobody can make prompts that meet.
        chained = hash((chained, text[end - block_bytes : end]))
        hashes.append(chained)
    return Prefix(text, block_bytes, tuple(hashes))


class PrefixTable:
    """Remembers which replicas were sent a beginning. Bounded; what was not seen for longest is forgotten first."""

    def __init__(self, max_blocks: int, max_replicas_per_block: int) -> None:
        self._max_blocks = max_blocks
        self._max_replicas = max_replicas_per_block
        self._replicas: OrderedDict[int, tuple[str, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._replicas)

    def longest(self, prefix: Prefix, candidates: Collection[str]) -> tuple[int, list[str]]:
        """Return how many blocks are known to any of the candidates, and to whom; (0, []) when none is."""
        known, holders = 0, list[str]()
        for hashed in prefix.hashes:
            found = [replica for replica in self._replicas.get(hashed, ()) if replica in candidates]
            if not found:
                break
            known, holders = known + 1, found
        return known, holders

    def learn(self, prefix: Prefix, replica: str) -> None:
        """Note that a replica gets this prompt."""
        # The last block first: what comes before is then forgotten after it, and a chain has no gaps.
        for hashed in reversed(prefix.hashes):
            others = self._replicas.get(hashed, ())
            if replica not in others:
                self._replicas[hashed] = (replica, *others[: self._max_replicas - 1])
            self._replicas.move_to_end(hashed)
        while len(self._replicas) > self._max_blocks:
            self._replicas.popitem(last=False)
