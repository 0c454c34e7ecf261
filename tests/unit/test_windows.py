from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.tokenizer.offsets import Span
from deployments.tokenizer.windows import Window, growing, overlapping, passage


def to_document(token_counts: Sequence[int]) -> list[Span]:
    """Make spans of two characters each, of so many tokens."""
    lasts = list(accumulate(token_counts))
    return [
        Span(2 * index, 2 * index + 2, last - count, last)
        for index, (count, last) in enumerate(zip(token_counts, lasts, strict=True))
    ]


counts = st.lists(st.integers(1, 5), max_size=60)
documents = counts.map(to_document)
some_documents = counts.filter(bool).map(to_document)
sizes = st.integers(1, 40)
overlaps = st.floats(0, 0.75)


def edges(windows: Sequence[Window]) -> list[tuple[int, int, int]]:
    return [(window.start, window.first, window.last) for window in windows]


def assert_scored_once(windows: Sequence[Window], document: Sequence[Span]) -> None:
    assert [span for window in windows for span in window.spans] == document
    for window in windows:
        assert (window.first, window.last) == (window.spans[0].first, window.spans[-1].last)


@given(documents, sizes)
def test_growing_parts_score_every_span_once_and_in_order(document: list[Span], first_tokens: int) -> None:
    windows = list(growing(document, first_tokens))
    assert_scored_once(windows, document)
    assert all(window.start == 0 for window in windows), "each is given all before it"


@given(documents, sizes)
def test_growing_parts_are_as_long_as_their_size_lets_them(document: list[Span], first_tokens: int) -> None:
    windows = list(growing(document, first_tokens))
    for index, window in enumerate(windows):
        size = first_tokens * 2**index
        assert window.last - window.first <= size or len(window.spans) == 1
        assert window is windows[-1] or windows[index + 1].spans[0].last - window.first > size


def test_each_part_is_twice_as_long_as_the_one_before() -> None:
    assert edges(list(growing(to_document([1] * 100), 10))) == [(0, 0, 10), (0, 10, 30), (0, 30, 70), (0, 70, 100)]


@given(documents, sizes, overlaps)
def test_overlapping_parts_score_every_span_once_and_in_order(
    document: list[Span], most_tokens: int, overlap: float
) -> None:
    assert_scored_once(list(overlapping(document, most_tokens, overlap)), document)


@given(documents, sizes, overlaps)
def test_overlapping_parts_fit_unless_a_single_span_does_not(
    document: list[Span], most_tokens: int, overlap: float
) -> None:
    for window in overlapping(document, most_tokens, overlap):
        length = window.last - window.start
        assert length <= most_tokens or (len(window.spans) == 1 and window.start == window.first)


@given(documents, sizes, overlaps)
def test_context_is_a_share_of_a_part_and_comes_from_just_before(
    document: list[Span], most_tokens: int, overlap: float
) -> None:
    windows = list(overlapping(document, most_tokens, overlap))
    starts = {span.first for span in document}
    assert all(window.start == window.first == 0 for window in windows[:1])
    for window in windows:
        assert window.start in starts
        assert 0 <= window.first - window.start <= most_tokens * overlap


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (0.0, [(0, 0, 8), (8, 8, 16), (16, 16, 20)]),
        (0.25, [(0, 0, 8), (6, 8, 14), (12, 14, 20)]),
        (0.75, [(0, 0, 8), (2, 8, 10), (4, 10, 12), (6, 12, 14), (8, 14, 16), (10, 16, 18), (12, 18, 20)]),
    ],
)
def test_overlapping_parts(overlap: float, expected: list[tuple[int, int, int]]) -> None:
    assert edges(list(overlapping(to_document([1] * 20), 8, overlap))) == expected


def test_context_makes_room_for_a_span_of_many_tokens() -> None:
    windows = list(overlapping(to_document([1, 1, 1, 1, 4, 6]), 5, 0.5))
    assert edges(windows) == [(0, 0, 4), (3, 4, 8), (8, 8, 14)]


@given(some_documents, sizes, st.floats(0, 1))
def test_a_passage_is_whole_spans_that_fit(document: list[Span], most_tokens: int, position: float) -> None:
    start, end = passage(document, most_tokens, position)
    inside = [span for span in document if start <= span.start and span.end <= end]
    assert (inside[0].start, inside[-1].end) == (start, end)
    assert inside[-1].last - inside[0].first <= most_tokens or len(inside) == 1


@given(some_documents, st.floats(0, 1))
def test_a_passage_of_all_tokens_is_the_whole(document: list[Span], position: float) -> None:
    assert passage(document, document[-1].last, position) == (0, document[-1].end)


@given(some_documents, sizes)
def test_passages_lie_where_they_are_asked_for(document: list[Span], most_tokens: int) -> None:
    places = [passage(document, most_tokens, step / 10) for step in range(11)]
    assert places[0][0] == 0
    assert places[-1][1] == document[-1].end
    assert places == sorted(places)


def test_a_passage_is_around_its_position() -> None:
    assert passage(to_document([1] * 100), 10, 0.5) == (90, 110)
