"""The fake engine's model: a tokenizer and deterministic text, without weights."""

import hashlib
import random
from collections.abc import Iterator

WORDS = (
    "the a one this that every small large quiet bright old new red green river stone tree house road light word line "
    "reads writes finds keeps moves holds turns opens slowly often never again here there and but while because under"
).split()
NUM_BYTES = 256


class FakeTokenizer:
    """Words of the fake model are one token each, everything else one token per UTF-8 byte."""

    vocabulary_tokens = NUM_BYTES + len(WORDS)

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for index, piece in enumerate(text.split(" ")):
            word = (" " if index else "") + piece
            known = piece in WORDS and index > 0
            ids += [NUM_BYTES + WORDS.index(piece)] if known else list(word.encode("utf-8", "surrogatepass"))
        return ids

    def decode(self, ids: list[int]) -> str:
        """Raises IndexError for ids outside the vocabulary."""
        pieces = [bytes([i]) if i < NUM_BYTES else f" {WORDS[i - NUM_BYTES]}".encode() for i in ids]
        return b"".join(pieces).decode("utf-8", "replace")


def fake_tokens(prompt_token_ids: list[int], seed: int) -> Iterator[int]:
    """Yield token ids for ever; the same prompt and seed always give the same ones."""
    digest = hashlib.sha256(f"{seed}:{prompt_token_ids}".encode()).digest()
    rng = random.Random(digest)
    while True:
        yield NUM_BYTES + rng.randrange(len(WORDS))
