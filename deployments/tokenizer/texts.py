"""The text of single tokens, and of tokens that continue others."""

import functools
import json
import re
from collections.abc import Iterable, Sequence
from itertools import groupby, takewhile

from tokenizers import Tokenizer

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
        self._restarts = self._starts_anew_after_added()
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
        return name if UNKNOWN in text and UNKNOWN not in name else text

    def _content(self, name: str) -> bytes | None:
        """Return the bytes that a vocabulary entry stands for, None when it does not say."""
        if not self._bytes:
            byte = BYTE_NAME.fullmatch(name)
            return bytes([int(byte[1], 16)]) if byte else None
        try:
            return bytes(self._bytes[character] for character in name)
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
        return frozenset(filter(self.is_partial, self._tokenizer.get_vocab().values()))

    def continuation(self, context_ids: Sequence[int], ids: Sequence[int]) -> str:
        """Return the text that tokens add after others.

        Special tokens are left out, and so are bytes that make no character, as those of one that is incomplete.
        """
        text = ""
        context = self._last_plain(context_ids)
        for is_added, group in groupby(ids, self._added.__contains__):
            run = list(group)
            if is_added:
                text += "".join(self._added[token_id] for token_id in run if token_id not in self.special_ids)
                context = self._after_added()
            else:
                text += self._decode([*context, *run])[len(self._decode(context)) :]
        return text

    def _last_plain(self, ids: Sequence[int]) -> list[int]:
        """Return the tokens at the end, as many as matter to what follows, or what stands for them."""
        plain = list(takewhile(lambda token_id: token_id not in self._added, reversed(ids[-CONTEXT_TOKENS:])))
        return plain[::-1] if plain or not len(ids) else self._after_added()

    def _after_added(self) -> list[int]:
        return [] if self._restarts else self._anchor

    def _starts_anew_after_added(self) -> bool:
        """Say whether text after an added token is encoded as at the start: then its first space is none of its own."""
        token_id, content = next(iter(self._added.items()), (0, ""))
        return self._tokenizer.encode(content + "a", add_special_tokens=False).ids == [token_id, *self._anchor]

    def _decode(self, ids: Iterable[int]) -> str:
        """Return the text of tokens that are none of the added ones."""
        names = [name for token_id in ids if (name := self._tokenizer.id_to_token(token_id)) is not None]
        if self._bytes:
            return b"".join(self._content(name) or name.encode() for name in names).decode(errors="ignore")
        decoder = self._tokenizer.decoder
        return str(decoder.decode(without_stray_bytes(names))) if decoder else " ".join(names)


def without_stray_bytes(names: Iterable[str]) -> list[str]:
    """Return tokens without the bytes that make no character: a decoder spoils their neighbours, too."""
    kept: list[str] = []
    for is_bytes, group in groupby(names, lambda name: BYTE_NAME.fullmatch(name) is not None):
        run = list(group)
        if is_bytes:
            content = bytes(int(name[3:5], 16) for name in run)
            run = [f"<0x{byte:02X}>" for byte in content.decode(errors="ignore").encode()]
        kept += run
    return kept


def written(content: bytes) -> str:
    return content.decode() if is_text(content) else "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_byte_level(tokenizer: Tokenizer) -> bool:
    described = json.loads(tokenizer.to_str())
    parts = [described.get("decoder") or {}, described.get("pre_tokenizer") or {}]
    parts += [inner for part in parts for name in ("decoders", "pretokenizers") for inner in part.get(name, ())]
    return any(part.get("type") == "ByteLevel" for part in parts)


def byte_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for.

    As in GPT-2 (https://github.com/openai/gpt-2/blob/master/src/encoder.py): printable bytes stand for themselves, the
    others are counted up from 256.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
