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
    the document does; else apart.
    """
    whole = tokenizer.encode(prefix + document, add_special_tokens=False)
    offsets, boundary = whole.offsets, len(prefix)
    # By ends, not starts: a token of no characters lies between, and belongs to the chat.
    first = next((index for index, (_, end) in enumerate(offsets) if end > boundary), len(offsets))
    if all(start >= boundary for start, _ in offsets[first:]):
        inside = [(start - boundary, end - boundary) for start, end in offsets[first:]]
        ids = array("i", whole.ids)
        return Encoded(ids[:first], ids[first:], to_spans(inside, len(document)))
    before = tokenizer.encode(prefix, add_special_tokens=False)
    after = tokenizer.encode(document, add_special_tokens=False)
    return Encoded(array("i", before.ids), array("i", after.ids), to_spans(after.offsets, len(document)))
