"""From log-probabilities to what a writing tool shows."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from deployments.analysis_types import TokenScores
from deployments.tokenizer.offsets import Span
from deployments.tokenizer.texts import TokenTexts

MAX_LOSS_NATS = 9999.0
"""Stands for infinity, which JSON does not have, as in vLLM's own answers."""

Item = dict[str, Any]


def to_items(
    document: str, spans: Sequence[Span], scores: TokenScores, texts: TokenTexts, with_detail: bool
) -> Iterator[Item]:
    """Write one item per span; the first row of `scores` is the first span's first token.

    The loss of a span is the sum over its tokens; its alternatives are those of its first token.
    """
    width = scores.num_alternatives + 1
    for span in spans:
        row = span.first - spans[0].first
        logprobs = scores.logprobs[row * width : (row + span.last - span.first) * width : width]
        first, last = row * width + 1, (row + 1) * width
        topk_tokens = [texts.text(token_id) for token_id in scores.token_ids[first:last]]
        item = {
            "start": span.start,
            "end": span.end,
            "token": document[span.start : span.end],
            "token_loss": sum(map(to_loss, logprobs)),
            "most_likely_token": topk_tokens[0],
            "topk_tokens": topk_tokens,
        }
        if with_detail:
            item |= {
                "rank": max(scores.ranks[row : row + span.last - span.first]),
                "entropy": entropy_nats(scores.logprobs[first:last]),
                "topk_logprobs": [to_logprob(logprob) for logprob in scores.logprobs[first:last]],
            }
        yield item


def to_loss(logprob: float) -> float:
    """Return -logprob, in nats, finite and not negative (rounding may make a logprob of 1e-9)."""
    return MAX_LOSS_NATS if math.isnan(logprob) else min(max(-logprob, 0.0), MAX_LOSS_NATS)


def to_logprob(logprob: float) -> float:
    """Return a log-probability, in nats, finite and not positive; 0.0 has no sign."""
    return 0.0 - to_loss(logprob)


def entropy_nats(logprobs: Sequence[float]) -> float:
    """Return the entropy of a distribution of which the most likely outcomes are known.

    All others together count as one outcome, so this is a lower bound, and exact when they have no weight.
    """
    probabilities = [math.exp(-to_loss(logprob)) for logprob in logprobs]
    rest = 1.0 - sum(probabilities)
    return 0.0 - sum(p * math.log(p) for p in (*probabilities, rest) if p > 0.0)


def to_entries(token_ids: Sequence[int], scores: TokenScores, texts: TokenTexts) -> Iterator[Item]:
    """Write each token of a chat with the distribution it came from, and at last that of the token after them.

    `scores` are those of all tokens but the first, whose distribution nobody knows.
    """
    width = scores.num_alternatives + 1
    yield {"token": texts.text(token_ids[0]), "logprobs": {}}
    for row, token_id in enumerate(token_ids[1:]):
        ids = scores.token_ids[row * width : (row + 1) * width]
        yield {
            "token": texts.text(token_id),
            "logprobs": to_map(ids, scores.logprobs[row * width : (row + 1) * width], texts),
        }
    yield {"token": None, "logprobs": to_map(scores.next_ids, scores.next_logprobs, texts)}


def to_map(token_ids: Sequence[int], logprobs: Sequence[float], texts: TokenTexts) -> dict[str, float]:
    """Return log-probabilities by text, most likely first; of two tokens with one text the likelier counts."""
    likely = sorted(zip(logprobs, token_ids, strict=True), key=lambda pair: -pair[0])
    found: dict[str, float] = {}
    for logprob, token_id in likely:
        found.setdefault(texts.text(token_id), to_logprob(logprob))
    return found
