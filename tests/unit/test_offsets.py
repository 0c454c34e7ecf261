from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.tokenizer.offsets import Span, to_spans, to_utf16
from tests.tokenizers import SIX_SCRIPTS, documents

numbers = st.integers(-3, 15)
anything = st.lists(st.tuples(numbers, numbers), max_size=12)
"""Offsets that no tokenizer should report: out of order, backwards, outside the document."""


@pytest.mark.parametrize(
    ("offsets", "length", "spans"),
    [
        pytest.param([(0, 2), (2, 5)], 5, [(0, 2, 0, 1), (2, 5, 1, 2)], id="one token after the other"),
        pytest.param([(0, 1), (1, 2), (1, 2), (2, 3)], 3, [(0, 1, 0, 1), (1, 2, 1, 3), (2, 3, 3, 4)], id="shared"),
        pytest.param([(0, 2), (1, 3), (2, 4), (4, 5)], 5, [(0, 4, 0, 3), (4, 5, 3, 4)], id="a chain of shared ones"),
        pytest.param([(0, 0), (0, 2), (2, 3)], 3, [(0, 2, 0, 2), (2, 3, 2, 3)], id="an empty token at the start"),
        pytest.param([(0, 2), (2, 2), (2, 3)], 3, [(0, 2, 0, 2), (2, 3, 2, 3)], id="an empty token between"),
        pytest.param([(0, 2), (2, 3), (3, 3)], 3, [(0, 2, 0, 1), (2, 3, 1, 3)], id="an empty token at the end"),
        pytest.param([(0, 0), (0, 0)], 3, [(0, 3, 0, 2)], id="only empty tokens"),
        pytest.param([(0, 2), (3, 5)], 5, [(0, 2, 0, 1), (2, 5, 1, 2)], id="a gap between"),
        pytest.param([(1, 2), (2, 3)], 5, [(0, 2, 0, 1), (2, 5, 1, 2)], id="gaps at both ends"),
        pytest.param([(0, 2), (2, 9)], 5, [(0, 2, 0, 1), (2, 5, 1, 2)], id="beyond the end"),
        pytest.param([(0, 2), (2, 4), (1, 3), (4, 5)], 5, [(0, 4, 0, 3), (4, 5, 3, 4)], id="out of order"),
        pytest.param([], 0, [], id="nothing"),
        pytest.param([], 5, [], id="all characters dropped"),
        pytest.param([(0, 0)], 0, [], id="tokens of no text"),
    ],
)
def test_tokens_are_grouped(
    offsets: list[tuple[int, int]], length: int, spans: list[tuple[int, int, int, int]]
) -> None:
    assert to_spans(offsets, length) == [Span(*span) for span in spans]


@given(anything, st.integers(0, 12))
def test_spans_are_a_partition_whatever_a_tokenizer_says(offsets: list[tuple[int, int]], length: int) -> None:
    spans = to_spans(offsets, length)
    assert bool(spans) == bool(offsets and length)
    characters = [index for span in spans for index in range(span.start, span.end)]
    tokens = [index for span in spans for index in range(span.first, span.last)]
    assert characters == (list(range(length)) if spans else [])
    assert tokens == (list(range(len(offsets))) if spans else [])
    assert all(span.start < span.end and span.first < span.last for span in spans)


@given(anything, st.integers(0, 12))
def test_no_character_of_a_token_is_in_the_span_of_another_one(offsets: list[tuple[int, int]], length: int) -> None:
    for span in to_spans(offsets, length):
        for start, end in offsets[span.first : span.last]:
            inside = range(max(start, 0), min(end, length))
            assert not inside or (span.start <= inside.start and inside.stop <= span.end)


@given(documents, st.data())
def test_utf16_offsets_are_those_of_javascript(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=5)) | {0, len(text)})
    spans = [Span(start, end, 0, 1) for start, end in pairwise(cuts) if end <= len(text)]
    units = text.encode("utf-16-le")
    for span, wide in zip(spans, to_utf16(spans, text), strict=True):
        assert units[2 * wide.start : 2 * wide.end].decode("utf-16-le") == text[span.start : span.end]
        assert (wide.first, wide.last) == (span.first, span.last)


def test_without_astral_characters_the_offsets_stay() -> None:
    spans = [Span(0, 2, 0, 1), Span(2, 4, 1, 3)]
    assert to_utf16(spans, "日本語文") == spans
    assert to_utf16([], "") == []
    assert to_utf16([Span(0, len(SIX_SCRIPTS), 0, 1)], SIX_SCRIPTS)[0].end > len(SIX_SCRIPTS)
