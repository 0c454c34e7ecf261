"""A document's tokens as they stand behind a rendered chat."""

import json
from array import array
from dataclasses import dataclass

from tokenizers import Tokenizer

from deployments.tokenizer.offsets import Span, to_spans


@dataclass(frozen=True, slots=True)
class Encoded:
    prefix_ids: "array[int]"
    document_ids: "array[int]"
    spans: list[Span]
    """Of the document: characters counted from its start, tokens from its first one."""


def exact(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy that adds no tokens, cuts nothing off, and whose offsets count spaces, too."""
    described = json.loads(tokenizer.to_str())
    return Tokenizer.from_str(json.dumps(described | {"post_processor": None, "truncation": None, "padding": None}))


def encode_after(tokenizer: Tokenizer, prefix: str, document: str) -> Encoded:
    """Encode a rendered chat and the document that continues it, so that no token is part of both.

    `tokenizer` is an `exact` one. Both are encoded as one text, as a chat template makes it, when a token begins where
    the document does; else apart. A space that the chat ends with may be the first token's: that is how models write a
    word after it.
    """
    whole = tokenizer.encode(prefix + document, add_special_tokens=False)
    ids, offsets, boundary = array("i", whole.ids), whole.offsets, len(prefix)
    # By ends, not starts: a token of no characters lies between, and belongs to the chat.
    first = next((index for index, (_, end) in enumerate(offsets) if end > boundary), len(offsets))
    inside = [(start - boundary, end - boundary) for start, end in offsets[first:]]
    last_end = offsets[first - 1][1] if first else 0
    first_start = inside[0][0] if inside else len(document)
    if first_start == -1 and last_end == boundary - 1 and prefix[-1] == " ":
        inside[0], last_end, first_start = (0, inside[0][1]), boundary, 0
    if all(start >= 0 for start, _ in inside):
        # Where characters are missing, a normalizer may have joined one of the document's with the one before it.
        is_tight = last_end == boundary and first_start == 0
        if is_tight or to_ids(tokenizer, prefix) == ids[:first]:
            return Encoded(ids[:first], ids[first:], to_spans(inside, len(document)))
    after = tokenizer.encode(document, add_special_tokens=False)
    return Encoded(to_ids(tokenizer, prefix), array("i", after.ids), to_spans(after.offsets, len(document)))


def to_ids(tokenizer: Tokenizer, text: str) -> "array[int]":
    return array("i", tokenizer.encode(text, add_special_tokens=False).ids)
