"""Which tokens of a document one engine call scores. Parts begin and end where characters do."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deployments.tokenizer.offsets import Span


@dataclass(frozen=True, slots=True)
class Window:
    """The tokens [start, last) of a document, of which those before `first` are only context; `spans` are scored."""

    start: int
    first: int
    last: int
    spans: Sequence[Span]


def growing(spans: Sequence[Span], first_tokens: int) -> Iterator[Window]:
    """Cut a document into parts of `first_tokens` tokens, twice as many, and so on, each given all before it.

    An engine computes every part from the start (it has no cached prefix where it scores a prompt), so doubling keeps
    the whole at about twice the cost of one call, and the first part as early as its length allows.
    """
    begin, size = 0, first_tokens
    while begin < len(spans):
        end = max(begin + 1, bisect_right(spans, spans[begin].first + size, key=lambda span: span.last))
        yield Window(0, spans[begin].first, spans[end - 1].last, spans[begin:end])
        begin, size = end, 2 * size


def overlapping(spans: Sequence[Span], most_tokens: int, overlap: float) -> Iterator[Window]:
    """Cut a document into parts of at most `most_tokens` tokens, each beginning with a share of the one before.

    A part always has at least one span, also when that alone is longer.
    """
    begin = 0
    while begin < len(spans):
        room = max(0, most_tokens - (spans[begin].last - spans[begin].first))
        context = min(int(most_tokens * overlap), room) if begin else 0
        start = bisect_left(spans, spans[begin].first - context, key=lambda span: span.first)
        end = max(begin + 1, bisect_right(spans, spans[start].first + most_tokens, key=lambda span: span.last))
        yield Window(spans[start].first, spans[begin].first, spans[end - 1].last, spans[begin:end])
        begin = end


def passage(spans: Sequence[Span], most_tokens: int, position: float) -> tuple[int, int]:
    """Return the characters of a passage of about `most_tokens` tokens around a `position` from 0 to 1."""
    total = spans[-1].last
    first = min(max(0, int(position * total) - most_tokens // 2), max(0, total - most_tokens))
    begin = min(bisect_left(spans, first, key=lambda span: span.first), len(spans) - 1)
    end = max(begin + 1, bisect_right(spans, first + most_tokens, key=lambda span: span.last))
    return spans[begin].start, spans[end - 1].end
