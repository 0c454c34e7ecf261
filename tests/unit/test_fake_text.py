from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engine.fake_text import WORDS, FakeTokenizer, fake_tokens

tokenizer = FakeTokenizer()
texts = st.text() | st.lists(st.sampled_from(WORDS) | st.text(max_size=3)).map(" ".join)


@given(texts)
def test_tokenizing_loses_nothing(text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < tokenizer.vocabulary_tokens for token in ids)


def test_known_words_are_one_token() -> None:
    assert len(tokenizer.encode("x river stone")) == 3
    assert len(tokenizer.encode("x zebra")) == 1 + len(" zebra")


def test_lone_surrogates_are_not_an_error() -> None:
    tokenizer.decode(tokenizer.encode("\ud800"))


@pytest.mark.parametrize("token", [tokenizer.vocabulary_tokens, 10**9])
def test_a_token_outside_the_vocabulary_is_an_error(token: int) -> None:
    with pytest.raises(IndexError):
        tokenizer.decode([token])


def first_tokens(prompt: list[int], seed: int) -> list[int]:
    return list(islice(fake_tokens(prompt, seed), 50))


@given(st.lists(st.integers(0, 300), max_size=5), st.integers())
def test_the_same_prompt_and_seed_give_the_same_text(prompt: list[int], seed: int) -> None:
    tokens = first_tokens(prompt, seed)
    assert tokens == first_tokens(prompt, seed)
    assert tokens != first_tokens(prompt, seed + 1)
    assert tokens != first_tokens([*prompt, 1], seed)
    assert tokenizer.encode("x" + tokenizer.decode(tokens))[1:] == tokens
