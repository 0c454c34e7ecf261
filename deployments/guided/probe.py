"""Try a constraint out: random walks through it, and what the mask of each token costs.

The engine computes a mask for each token while everybody waits for theirs. What one costs can depend on what was
written before: walks that write long tokens, or the same one as long as they may, find what explodes in repetitions.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from config.guided import CompileLimits
from deployments.guided.compilers import Bitmask, LoadedVocabulary, Matcher

TokenIds = NDArray[np.int64]
Lengths = NDArray[np.int32]


class UnsuitableError(Exception):
    """The constraint compiles, but engines must not have it; says why, for the client."""


class SlowMasksError(UnsuitableError):
    """One mask, or all together, took longer than they may."""


@dataclass(frozen=True, slots=True)
class Step:
    """One token of a walk."""

    bitmask: Bitmask
    """What may come next; written anew at the next step."""
    token_id: int | None
    """What comes next; None: the answer is complete, or the walk long enough."""
    cost_ms: float
    """CPU time of going on with the token before, and of this mask."""


Choice = Callable[[random.Random, TokenIds, Lengths, int | None], int]
"""Chooses one of the allowed tokens, given how long each is, and the token before."""


def any_token(rng: random.Random, allowed: TokenIds, lengths: Lengths, last: int | None) -> int:
    return int(rng.choice(allowed))


def longest_token(rng: random.Random, allowed: TokenIds, lengths: Lengths, last: int | None) -> int:
    return int(rng.choice(allowed[lengths == lengths.max()]))


def shortest_token(rng: random.Random, allowed: TokenIds, lengths: Lengths, last: int | None) -> int:
    return int(rng.choice(allowed[lengths == lengths.min()]))


def same_token(rng: random.Random, allowed: TokenIds, lengths: Lengths, last: int | None) -> int:
    """Stay in a repetition as long as it lasts."""
    return last if last is not None and last in allowed else longest_token(rng, allowed, lengths, last)


WALKS: tuple[tuple[Choice, int], ...] = (
    (longest_token, 0),
    (same_token, 0),
    (any_token, 0),
    (any_token, 1),
    (shortest_token, 0),
)
"""How each walk chooses, and the seed of its dice: a constraint is tried out in the same way each time."""
COMPARED = tuple(how for how in WALKS if how[0] is any_token)
"""Walks on which masks are compared."""


def probe(make: Callable[[], Matcher], vocabulary: LoadedVocabulary, limits: CompileLimits) -> None:
    """Try a constraint out; raises UnsuitableError, or MatcherError when the compiler gives up on the way."""
    spent_ms = 0.0
    for choose, seed in WALKS:
        try:
            spent_ms += _cost_ms(walk(make(), vocabulary, limits.probe_tokens, choose, seed), limits, spent_ms)
        except SlowMasksError:
            # Something else may have slowed the machine down: what is slow in itself is slow again.
            spent_ms += _cost_ms(walk(make(), vocabulary, limits.probe_tokens, choose, seed), limits, spent_ms)


def same_masks(make: Callable[[], Matcher], other: Callable[[], Matcher], vocabulary: LoadedVocabulary, n: int) -> bool:
    """Say whether two constraints allow the same tokens on walks of `n` tokens."""
    return all(_same_masks(walk(make(), vocabulary, n, *how), other(), vocabulary.bitmask()) for how in COMPARED)


def walk(matcher: Matcher, vocabulary: LoadedVocabulary, num_tokens: int, choose: Choice, seed: int) -> Iterator[Step]:
    """Write so many tokens, or until the answer must end; raises UnsuitableError when it can neither end nor go on."""
    rng = random.Random(seed)
    bitmask = vocabulary.bitmask()
    token_id: int | None = None
    for num_left in reversed(range(num_tokens + 1)):
        begin_s = time.thread_time()  # not the time on the wall: others may have the processor
        if token_id is not None and not matcher.accept(token_id):
            raise UnsuitableError("it does not take a token that it allows")
        matcher.fill(bitmask)
        cost_ms = (time.thread_time() - begin_s) * 1000
        allowed = _allowed(bitmask, vocabulary)
        if allowed is None or not num_left:
            yield Step(bitmask, None, cost_ms)
            return
        token_id = choose(rng, allowed, vocabulary.lengths[allowed], token_id)
        yield Step(bitmask, token_id, cost_ms)


def _allowed(bitmask: Bitmask, vocabulary: LoadedVocabulary) -> TokenIds | None:
    """Return the tokens that go on; None: the answer can only end."""
    bits = np.unpackbits(bitmask[0].view(np.uint8), count=vocabulary.size, bitorder="little")
    if not bits.any():
        raise UnsuitableError("there are answers that no token of this model can complete")
    bits[vocabulary.stop_token_ids] = 0
    allowed = np.flatnonzero(bits.view(np.bool_))  # four times as fast as that of numbers
    return allowed if len(allowed) else None


def _cost_ms(steps: Iterator[Step], limits: CompileLimits, spent_ms: float) -> float:
    """Return the CPU time of a walk's masks; raises SlowMasksError when it is more than may be."""
    cost_ms = 0.0
    for step in steps:
        cost_ms += step.cost_ms
        if step.cost_ms > limits.max_mask_ms:
            limit = f"{limits.max_mask_ms:g} ms (compilation.max_mask_ms)"
            raise SlowMasksError(f"finding out what may come next takes {step.cost_ms:.0f} ms, more than {limit}")
        if spent_ms + cost_ms > limits.max_walk_ms:
            limit = f"{limits.max_walk_ms:g} ms (compilation.max_walk_ms)"
            raise SlowMasksError(f"finding out what may come next, for all tokens of a trial, takes more than {limit}")
    return cost_ms


def _same_masks(steps: Iterator[Step], other: Matcher, bitmask: Bitmask) -> bool:
    for step in steps:
        other.fill(bitmask)
        if not np.array_equal(step.bitmask, bitmask):
            return False
        if step.token_id is not None and not other.accept(step.token_id):
            return False
    return True
