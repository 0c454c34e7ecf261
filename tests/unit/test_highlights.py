import json
import math
from array import array
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.analysis_types import TokenScores
from deployments.tokenizer.highlights import MAX_LOSS_NATS, entropy_nats, to_entries, to_items, to_map
from deployments.tokenizer.offsets import Span
from deployments.tokenizer.texts import TokenTexts
from deployments.types import Usage
from tests.tokenizers import make_tokenizer

TEXTS = TokenTexts(make_tokenizer("demo"))
FOX, RIVER, HOUSE, SPACE = make_tokenizer("demo").encode(" fox river house ").ids
Row = Sequence[tuple[int, float]]


def to_scores(*rows: Row, ranks: Sequence[int] = (), after: Row = ()) -> TokenScores:
    """Make scores of rows of (token, log-probability): the scored token first, then the alternatives."""
    return TokenScores(
        num_alternatives=len(rows[0]) - 1 if rows else 0,
        token_ids=array("i", [token_id for row in rows for token_id, _ in row]),
        logprobs=array("f", [logprob for row in rows for _, logprob in row]),
        ranks=array("i", ranks or [1] * len(rows)),
        next_ids=array("i", [token_id for token_id, _ in after]),
        next_logprobs=array("f", [logprob for _, logprob in after]),
        usage=Usage(0, 0),
    )


def items_of(document: str, spans: Sequence[Span], scores: TokenScores, detail: bool = False) -> list[dict[str, Any]]:
    return list(to_items(document, spans, scores, TEXTS, detail))


def is_plain_zero(number: float) -> bool:
    return number == 0 and math.copysign(1, number) == 1


ROW: Row = [(FOX, -2.0), (RIVER, -0.5), (FOX, -2.0)]


def test_an_item_is_a_piece_with_its_loss_and_its_alternatives() -> None:
    (item,) = items_of(" fox", [Span(0, 4, 0, 1)], to_scores(ROW))
    assert item == {
        "start": 0,
        "end": 4,
        "token": " fox",
        "token_loss": 2.0,
        "most_likely_token": " river",
        "topk_tokens": [" river", " fox"],
    }


def test_detail_adds_the_rank_and_the_distribution() -> None:
    (item,) = items_of(" fox", [Span(0, 4, 0, 1)], to_scores(ROW, ranks=[2]), detail=True)
    assert item["rank"] == 2
    assert item["topk_logprobs"] == [-0.5, -2.0]
    assert item["entropy"] == entropy_nats([-0.5, -2.0])


def test_tokens_of_one_piece_add_their_losses_and_the_first_ones_alternatives_count() -> None:
    spans = [Span(0, 4, 3, 4), Span(4, 5, 4, 7), Span(5, 11, 7, 8)]
    piece: list[Row] = [[(7, -0.25), (HOUSE, -1.0)], [(8, -0.5), (FOX, -1.0)], [(9, -1.0), (FOX, -1.0)]]
    scores = to_scores([(FOX, -2.0), (FOX, -2.0)], *piece, [(RIVER, -4.0), (RIVER, -4.0)], ranks=[1, 2, 9, 3, 1])
    items = items_of(" fox🦊 river", spans, scores, detail=True)
    assert [item["token"] for item in items] == [" fox", "🦊", " river"]
    assert [item["token_loss"] for item in items] == [2.0, 1.75, 4.0]
    assert [item["topk_tokens"] for item in items] == [[" fox"], [" house"], [" river"]]
    assert [item["rank"] for item in items] == [1, 9, 1]
    assert [item["topk_logprobs"] for item in items] == [[-2.0], [-1.0], [-4.0]]


def test_no_spans_are_no_items() -> None:
    assert items_of("", [], to_scores()) == []


def test_what_is_impossible_has_a_finite_loss() -> None:
    row = [(FOX, -math.inf), (RIVER, 0.0), (FOX, -math.inf)]
    (item,) = items_of(" fox", [Span(0, 4, 0, 1)], to_scores(row), detail=True)
    assert item["token_loss"] == MAX_LOSS_NATS
    assert item["topk_logprobs"] == [0.0, -MAX_LOSS_NATS]
    assert item["entropy"] == 0.0
    json.dumps(item, allow_nan=False)


@pytest.mark.parametrize("logprob", [1e-7, 0.0, -0.0])
def test_what_is_certain_is_zero_without_a_sign(logprob: float) -> None:
    scores = to_scores([(FOX, logprob), (FOX, logprob)], after=[(FOX, logprob)])
    (item,) = items_of(" fox", [Span(0, 4, 0, 1)], scores, detail=True)
    _, entry, after = to_entries([RIVER, FOX], scores, TEXTS)
    shown = [item["token_loss"], item["entropy"], *item["topk_logprobs"]]
    shown += [*entry["logprobs"].values(), *after["logprobs"].values()]
    assert len(shown) == 5
    assert all(is_plain_zero(number) for number in shown)


weights = st.lists(st.floats(1e-6, 1), min_size=1, max_size=12)


@given(weights, st.integers(1, 12))
def test_the_entropy_of_the_likeliest_is_a_lower_bound(weights: list[float], k: int) -> None:
    logprobs = sorted((math.log(weight / sum(weights)) for weight in weights), reverse=True)
    whole = -sum(math.exp(logprob) * logprob for logprob in logprobs)
    assert 0 <= entropy_nats(logprobs[:k]) <= whole + 1e-9
    assert entropy_nats([*logprobs, -math.inf]) == pytest.approx(whole, abs=1e-9)


@given(st.lists(st.floats(-50, 0.01) | st.just(-math.inf), max_size=20))
def test_the_entropy_of_what_adds_up_to_more_than_one_is_finite(logprobs: list[float]) -> None:
    assert 0 <= entropy_nats(logprobs) < math.inf


def test_entries_are_the_tokens_with_what_they_came_from_and_what_may_follow() -> None:
    scores = to_scores(ROW, [(HOUSE, -1.0), (HOUSE, -1.0), (SPACE, -3.0)], after=[(RIVER, -0.5), (FOX, -1.5)])
    assert list(to_entries([SPACE, FOX, HOUSE], scores, TEXTS)) == [
        {"token": " ", "logprobs": {}},
        {"token": " fox", "logprobs": {" river": -0.5, " fox": -2.0}},
        {"token": " house", "logprobs": {" house": -1.0, " ": -3.0}},
        {"token": None, "logprobs": {" river": -0.5, " fox": -1.5}},
    ]


def test_a_chat_of_one_token_has_only_what_may_follow() -> None:
    first, after = to_entries([FOX], to_scores(after=[(RIVER, -0.5)]), TEXTS)
    assert first == {"token": " fox", "logprobs": {}}
    assert after == {"token": None, "logprobs": {" river": -0.5}}


def test_a_token_that_is_none_of_the_alternatives_is_among_its_log_probabilities() -> None:
    assert list(to_map([HOUSE, RIVER, FOX], [-9.0, -0.5, -2.0], TEXTS).items()) == [
        (" river", -0.5),
        (" fox", -2.0),
        (" house", -9.0),
    ]


def test_of_two_tokens_with_one_text_the_likelier_counts() -> None:
    nobody = 10**6  # ids that no token has share the empty text
    found = to_map([nobody, FOX, nobody + 1], [-3.0, -2.0, -1.0], TEXTS)
    assert found == {"": -1.0, " fox": -2.0}


def test_a_map_of_what_is_impossible_is_finite() -> None:
    assert to_map([FOX], [-math.inf], TEXTS) == {" fox": -MAX_LOSS_NATS}
