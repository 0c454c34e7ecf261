"""The text of single tokens, and of tokens that continue others."""

import functools
import json
import re
from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

UNKNOWN = "\ufffd"
BYTE_NAME = re.compile(r"<0x([0-9A-F]{2})>")
CONTEXT_TOKENS = 8
"""So many tokens before a text say how its first character is to be read: a character has at most four bytes."""


class TokenTexts:
    """Texts of a tokenizer's tokens. May be used by several threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        added = tokenizer.get_added_tokens_decoder()
        self._tokenizer = tokenizer
        self._added = {token_id: token.content for token_id, token in added.items()}
        self._bytes = byte_alphabet() if is_byte_level(tokenizer) else {}
        self._anchor = tokenizer.encode("a", add_special_tokens=False).ids
        self._anchor_text = tokenizer.decode(self._anchor, skip_special_tokens=False)
        self._known: dict[int, str] = {}
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)

    def text(self, token_id: int) -> str:
        """Return a token's own text, with the space it begins with; "" for an id that no token has.

        A token that holds only a part of a character is written `bytes:\\xe2\\x98`, as in OpenAI's log-probabilities.
        """
        text = self._known.get(token_id)
        if text is None:
            text = self._known[token_id] = self._text(token_id)
        return text

    def _text(self, token_id: int) -> str:
        name = self._tokenizer.id_to_token(token_id)
        if name is None:
            return ""
        if token_id in self._added:
            return self._added[token_id]
        content = self._content(name)
        if content is not None:
            return written(content)
        # A decoder may drop the space that a first token begins with: so it is not the first.
        text = self._tokenizer.decode([*self._anchor, token_id], skip_special_tokens=False)
        text = text.removeprefix(self._anchor_text)
        return name if UNKNOWN in text else text

    def _content(self, name: str) -> bytes | None:
        """Return the bytes that a vocabulary entry stands for, None when it does not say."""
        if byte := BYTE_NAME.fullmatch(name):
            return bytes([int(byte[1], 16)])
        try:
            return bytes(self._bytes[character] for character in name) if self._bytes else None
        except KeyError:
            return None

    def is_partial(self, token_id: int) -> bool:
        """Say whether a token holds only a part of a character."""
        name = self._tokenizer.id_to_token(token_id)
        if name is None or token_id in self._added:
            return False
        content = self._content(name)
        return content is not None and not is_text(content)

    @functools.cached_property
    def partial_ids(self) -> frozenset[int]:
        return frozenset(filter(self.is_partial, range(self._tokenizer.get_vocab_size())))

    def continuation(self, context_ids: Sequence[int], ids: Sequence[int]) -> str:
        """Return the text that tokens add after others; special tokens and a last incomplete character are left out."""
        context = [token_id for token_id in context_ids[-CONTEXT_TOKENS:] if token_id not in self.special_ids]
        stream = DecodeStream(ids=context, skip_special_tokens=True)
        return "".join(stream.step(self._tokenizer, token_id) or "" for token_id in ids)


def written(content: bytes) -> str:
    return content.decode() if is_text(content) else "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_byte_level(tokenizer: Tokenizer) -> bool:
    decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
    return "ByteLevel" in [decoder.get("type"), *(part.get("type") for part in decoder.get("decoders", ()))]


def byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for.

    As in GPT-2 (https://github.com/openai/gpt-2/blob/master/src/encoder.py): printable bytes stand for themselves, the
    others are counted up from 256.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
