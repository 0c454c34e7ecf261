"""The fake engine's token-level calls: numbers that look like a model's, always the same."""

from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.analysis_types import BranchRequest, SampleRequest, ScoreRequest
from deployments.engine.fake_native import TOKENIZER, UNLIKELY, VOCABULARY_TOKENS, branch, sample, score
from deployments.types import Usage
from tests.demo import DEMO, demo_tokenizer

tokens = st.integers(0, VOCABULARY_TOKENS - 1)
prompts = st.lists(tokens, min_size=1, max_size=12).map(lambda ids: array("i", ids))


def test_its_tokens_are_those_of_the_demo_model() -> None:
    assert DEMO.path.endswith(TOKENIZER)
    assert demo_tokenizer().exact.get_vocab_size() == VOCABULARY_TOKENS


@given(prompts, st.integers(1, 12), st.integers(1, 20), st.booleans())
def test_scores_have_a_row_for_each_token_after_the_first_ones(
    prompt: "array[int]", first: int, k: int, with_next: bool
) -> None:
    request = ScoreRequest(prompt, first, k, with_next)
    scores = score(request)
    width, rows = k + 1, max(0, len(prompt) - first)
    assert (len(scores.token_ids), len(scores.logprobs), len(scores.ranks)) == (rows * width, rows * width, rows)
    assert scores.token_ids[::width] == prompt[first:]
    assert len(scores.next_ids) == len(scores.next_logprobs) == k * with_next
    assert scores.usage == Usage(len(prompt), 1)
    assert scores == score(request)


@given(prompts, st.integers(1, 20))
def test_alternatives_are_different_and_the_likeliest_is_first(prompt: "array[int]", k: int) -> None:
    scores = score(ScoreRequest(prompt, 1, k, with_next=True))
    rows = [scores.logprobs[row + 1 : row + k + 1] for row in range(0, len(scores.logprobs), k + 1)]
    for logprobs in [*rows, scores.next_logprobs]:
        assert all(one > other for one, other in pairwise(logprobs))
        assert logprobs[0] < 0
    assert len(set(scores.next_ids)) == k


def test_the_likeliest_token_has_its_own_log_probability_and_rank_and_another_one_the_last() -> None:
    likely, other = score(ScoreRequest(array("i", [7]), 1, 2, with_next=True)).next_ids
    scores = score(ScoreRequest(array("i", [7, other, 7, likely]), 1, 2))
    assert scores.ranks == array("i", [2, VOCABULARY_TOKENS, 1])
    assert [scores.logprobs[0], scores.logprobs[6]] == [scores.logprobs[2], scores.logprobs[7]]
    assert scores.logprobs[3] == UNLIKELY


@given(prompts, st.integers(1, 20), st.integers(0, 4))
def test_branches_are_what_scoring_says_may_come_next(prompt: "array[int]", count: int, num_future: int) -> None:
    branches = branch(BranchRequest(prompt, count, num_future, frozenset())).branches
    after = score(ScoreRequest(prompt, 1, count, with_next=True))
    assert [one.token_id for one in branches] == after.next_ids.tolist()
    assert array("f", [one.logprob for one in branches]) == after.next_logprobs
    assert all(len(one.future_ids) == num_future for one in branches)


def test_what_follows_a_branch_is_greedy() -> None:
    (found,) = branch(BranchRequest(array("i", [7]), 1, 3, frozenset())).branches
    ids = array("i", [7, found.token_id, *found.future_ids])
    assert score(ScoreRequest(ids, 1, 1)).ranks == array("i", [1, 1, 1, 1])


@given(prompts, st.frozensets(tokens, max_size=50))
def test_tokens_to_pass_over_are_passed_over(prompt: "array[int]", others: frozenset[int]) -> None:
    first = branch(BranchRequest(prompt, 3, 0, frozenset()))
    skip = others | {one.token_id for one in first.branches}
    second = branch(BranchRequest(prompt, 3, 0, skip))
    assert len(second.branches) == 3
    assert not skip & {one.token_id for one in second.branches}


def test_when_all_tokens_are_passed_over_there_are_no_branches() -> None:
    skip = frozenset(range(VOCABULARY_TOKENS - 2))
    assert len(branch(BranchRequest(array("i", [7]), 5, 1, skip)).branches) == 2


@pytest.mark.parametrize(("num_future", "usage"), [(0, Usage(2, 1)), (3, Usage(2 * 6, 5 * 3 + 1))])
def test_what_branches_cost(num_future: int, usage: Usage) -> None:
    assert branch(BranchRequest(array("i", [7, 8]), 5, num_future, frozenset())).usage == usage


def test_samples_differ_from_each_other_and_with_the_seed() -> None:
    request = SampleRequest(array("i", [7]), 3, 5, 0.5, 50, 0.95)
    samples = sample(request, seed=0)
    assert [len(ids) for ids in samples.token_ids] == [5, 5, 5]
    assert len({tuple(ids) for ids in samples.token_ids}) == 3
    assert samples == sample(request, seed=0)
    assert samples.token_ids != sample(request, seed=1).token_ids
    assert samples.usage == Usage(1, 15)


def test_samples_end_by_themselves() -> None:
    samples = sample(SampleRequest(array("i", [7]), 1, 10**6, 0.5, 50, 0.95), seed=0)
    assert len(samples.token_ids[0]) < 10**3
