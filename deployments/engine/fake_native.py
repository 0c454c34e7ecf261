"""The fake engine's token-level calls: made-up numbers, always the same for the same tokens."""

import hashlib
import math
import random
from array import array
from collections.abc import Iterable, Sequence

from deployments.analysis_types import (
    Branch,
    Branches,
    BranchRequest,
    SampleRequest,
    Samples,
    ScoreRequest,
    TokenScores,
)
from deployments.types import Usage

TOKENIZER = "config/demo_model"
VOCABULARY_TOKENS = 4096
"""Of that tokenizer: texts of token-level calls have to look like some."""
UNLIKELY = -20.0


def score(request: ScoreRequest) -> TokenScores:
    ids, k = list(request.prompt_token_ids), request.num_alternatives
    token_ids, logprobs, ranks = array("i"), array("f"), array("i")
    for position in range(request.first, len(ids)):
        # Of the last token alone, so that scoring a long document is not quadratic.
        likely = next_tokens(ids[position - 1 : position], k)
        known = dict(likely)
        token_ids.extend([ids[position], *(token_id for token_id, _ in likely)])
        logprobs.extend([known.get(ids[position], UNLIKELY), *(logprob for _, logprob in likely)])
        ranks.append(list(known).index(ids[position]) + 1 if ids[position] in known else VOCABULARY_TOKENS)
    after = next_tokens(ids[-1:], k) if request.with_next else []
    next_ids, next_logprobs = array("i", [pair[0] for pair in after]), array("f", [pair[1] for pair in after])
    return TokenScores(k, token_ids, logprobs, ranks, next_ids, next_logprobs, Usage(len(ids), 1))


def branch(request: BranchRequest) -> Branches:
    ids = list(request.prompt_token_ids)
    candidates = next_tokens(ids[-1:], min(VOCABULARY_TOKENS, request.num_branches + len(request.skip_token_ids)))
    likely = [pair for pair in candidates if pair[0] not in request.skip_token_ids][: request.num_branches]
    branches = [
        Branch(token_id, logprob, array("i", greedy(token_id, request.num_future_tokens)))
        for token_id, logprob in likely
    ]
    prompts = 1 + len(branches) * bool(request.num_future_tokens)
    return Branches(tuple(branches), Usage(len(ids) * prompts, len(branches) * request.num_future_tokens + 1))


def sample(request: SampleRequest, seed: int) -> Samples:
    ids, count = list(request.prompt_token_ids), min(request.max_tokens, 64)
    rngs = [generator(seed, choice, ids) for choice in range(request.n)]
    texts = tuple(array("i", [rng.randrange(VOCABULARY_TOKENS) for _ in range(count)]) for rng in rngs)
    return Samples(texts, Usage(len(ids), count * request.n))


def next_tokens(context: Sequence[int], count: int) -> list[tuple[int, float]]:
    """Return the `count` most likely tokens with log-probabilities that halve from one to the next."""
    likely = generator(*context).sample(range(VOCABULARY_TOKENS), count)
    return [(token_id, -math.log(2) * rank) for rank, token_id in enumerate(likely, 1)]


def greedy(token_id: int, count: int) -> Iterable[int]:
    for _ in range(count):
        ((token_id, _),) = next_tokens([token_id], 1)
        yield token_id


def generator(*seed: object) -> random.Random:
    return random.Random(hashlib.sha256(repr(seed).encode()).digest())
