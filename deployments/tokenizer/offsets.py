"""Which characters of a document its tokens make up."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of whole characters [start, end), in Unicode code points, made by the tokens [first, last)."""

    start: int
    end: int
    first: int
    last: int


def to_spans(offsets: Iterable[tuple[int, int]], length: int) -> list[Span]:
    """Group tokens into pieces of whole characters, from the (start, end) of each in a document of `length`.

    Whatever a tokenizer says: the spans are contiguous from 0 to `length`, none is empty, and every token is in one;
    there are none only when there are no tokens or no characters. Tokens that share a character are in one span, and
    so is a token of no characters with the one before it (the first with the one after). Characters that no token
    claims belong to the token that follows, or to the last one.
    """
    spans: list[Span] = []
    first = last = start = end = 0
    for token_start, token_end in offsets:
        token_end = min(token_end, length)
        if token_start < token_end:
            if start < end <= token_start:
                spans.append(Span(start, end, first, last))
                first, start = last, end
            while spans and token_start < start:
                opened = spans.pop()
                first, start = opened.first, opened.start
            end = max(end, token_end)
        last += 1
    return [*spans, Span(start, length, first, last)] if last and length else []


def to_utf16(spans: Sequence[Span], text: str) -> list[Span]:
    """Return the spans with offsets in UTF-16 code units, as JavaScript counts."""
    if max(text, default="") <= "\uffff":
        return list(spans)
    positions = list(accumulate((1 + (character > "\uffff") for character in text), initial=0))
    return [replace(span, start=positions[span.start], end=positions[span.end]) for span in spans]
