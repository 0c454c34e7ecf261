import re
from array import array
from itertools import chain, zip_longest

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from deployments.tokenizer.encoding import encode_after, exact
from deployments.tokenizer.texts import TokenTexts
from tests.tokenizers import BYTE_LEVEL, CHATS, NAMES, SENTENCEPIECE, SIX_SCRIPTS, documents, make_tokenizer

each_tokenizer = pytest.mark.parametrize("name", NAMES)
TEXTS = {name: TokenTexts(make_tokenizer(name)) for name in NAMES}


def ids_of(name: str, text: str) -> list[int]:
    return list(make_tokenizer(name).encode(text, add_special_tokens=False).ids)


def id_of(name: str, token: str) -> int:
    token_id = make_tokenizer(name).token_to_id(token)
    assert token_id is not None
    return token_id


def as_read(name: str, text: str) -> str:
    """Return what a model's tokens can say of a text: no special tokens, and the rest as normalized."""
    tokenizer = make_tokenizer(name)
    added = {token.content: token.special for token in tokenizer.get_added_tokens_decoder().values()}
    segments = re.split(f"({'|'.join(map(re.escape, added))})", text)
    if name in SENTENCEPIECE:
        rest = [segment.replace("▁", " ") for segment in segments[::2]]
    else:
        rest = [tokenizer.normalizer.normalize_str(part) if tokenizer.normalizer else part for part in segments[::2]]
    kept = ["" if added[segment] else segment for segment in segments[1::2]]
    return "".join(chain.from_iterable(zip_longest(rest, kept, fillvalue="")))


@each_tokenizer
def test_no_text_holds_a_replacement_character(name: str) -> None:
    tokenizer, texts = make_tokenizer(name), TEXTS[name]
    for token_id in tokenizer.get_vocab().values():
        assert "\ufffd" not in texts.text(token_id)
        assert texts.text(token_id)
        assert (
            texts.is_partial(token_id) == texts.text(token_id).startswith("bytes:") == (token_id in texts.partial_ids)
        )


@pytest.mark.parametrize(
    ("name", "token", "text"),
    [
        ("demo", "Ġthe", " the"),
        ("demo", "Ċ", "\n"),
        ("demo", "â", "bytes:\\xe2"),
        ("demo", "âĢ", "bytes:\\xe2\\x80"),
        ("demo", "<|im_end|>", "<|im_end|>"),
        ("demo", "<tool_call>", "<tool_call>"),
        ("greedy", "été", "été"),
        ("llama", "▁", " "),
        ("llama", "▁He", " He"),
        ("llama", "<0x0A>", "\n"),
        ("llama", "<0xE2>", "bytes:\\xe2"),
        ("llama", "</s>", "</s>"),
        ("metaspace", "▁Hello", " Hello"),
        ("metaspace", "e", "e"),
        ("metaspace", "<0x98>", "bytes:\\x98"),
        ("wordpiece", "hello", " hello"),
        ("wordpiece", "##o", "o"),
        ("wordpiece", "[SEP]", "[SEP]"),
    ],
)
def test_the_text_of_a_token(name: str, token: str, text: str) -> None:
    assert TEXTS[name].text(id_of(name, token)) == text
    assert TEXTS[name].text(id_of(name, token)) == text  # as remembered


@pytest.mark.parametrize("token_id", [4096, 151_935, 2**31 - 1])
def test_ids_beyond_the_vocabulary_have_no_text(token_id: int) -> None:
    assert TEXTS["demo"].text(token_id) == ""
    assert not TEXTS["demo"].is_partial(token_id)
    assert TEXTS["demo"].continuation([token_id], [token_id]) == ""


def test_special_tokens_are_known() -> None:
    assert TEXTS["demo"].special_ids == {0, 1, 2}
    assert TEXTS["greedy"].special_ids == {0, 1, 2, id_of("greedy", "<mask>"), id_of("greedy", "<|assistant|>")}
    assert not TEXTS["demo"].is_partial(1)


def test_partial_ids_beyond_a_hole_in_the_vocabulary_are_found() -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "â": 7}, []))
    tokenizer.decoder = decoders.ByteLevel()
    assert TokenTexts(tokenizer).partial_ids == {7}


def test_a_byte_level_vocabulary_is_known_by_its_pre_tokenizer_too() -> None:
    tokenizer = Tokenizer(models.BPE({"a": 0, "Ġ": 1, "â": 2, "<0xE2>": 3}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])
    assert [TokenTexts(tokenizer).text(token_id) for token_id in range(4)] == ["a", " ", "bytes:\\xe2", "<0xE2>"]


def test_without_a_decoder_a_text_is_the_vocabulary_s() -> None:
    texts = TokenTexts(Tokenizer(models.BPE({"a": 0, "\ufffd": 1, "b": 2}, [])))
    assert texts.text(1) == " \ufffd"  # a character that the token does stand for
    assert texts.continuation([0], [2]) == " b"


@pytest.mark.parametrize("name", ["demo", "nfc"])
@given(prefix=documents, document=documents)
@example("", "\ufffd")
@example("\ufffd", "\ufffd")
@settings(max_examples=100)
def test_a_continuation_is_the_document(name: str, prefix: str, document: str) -> None:
    encoded = encode_after(make_tokenizer(name), prefix, document)
    found = TEXTS[name].continuation(encoded.prefix_ids, encoded.document_ids)
    if prefix.endswith(" "):  # it may be the document's first token that has it
        found = found.removeprefix(" ") if found != as_read(name, document) else found
    assert found == as_read(name, document)


@pytest.mark.parametrize("name", SENTENCEPIECE)
@given(prefix=st.sampled_from(CHATS[1:]), document=documents)
@example("<s>", " Hello")
@example("<s>", "Hello</s>Hello")
@example("été\n日本語\n", "日本語")
@settings(max_examples=100)
def test_a_continuation_of_sentencepiece_is_the_document(name: str, prefix: str, document: str) -> None:
    assume("<0x" not in document)  # the name of a byte is taken for the byte
    encoded = encode_after(make_tokenizer(name), prefix, document)
    found = TEXTS[name].continuation(encoded.prefix_ids, encoded.document_ids)
    assert found == as_read(name, document)


@each_tokenizer
@given(data=st.data())
@settings(max_examples=60)
def test_any_tokens_have_a_continuation(name: str, data: st.DataObject) -> None:
    ids = st.lists(st.integers(0, make_tokenizer(name).get_vocab_size() + 2), max_size=12)
    assert "\ufffd" not in TEXTS[name].continuation(data.draw(ids), data.draw(ids))


@pytest.mark.parametrize("name", [*BYTE_LEVEL, *SENTENCEPIECE])
@pytest.mark.parametrize("cut", range(1, 4))
def test_a_character_that_spans_tokens_belongs_to_the_one_that_completes_it(name: str, cut: int) -> None:
    face = ids_of(name, "the\n😀")[-4:]
    before, texts = ids_of(name, "the\n"), TEXTS[name]
    assert texts.continuation(before, face[:cut]) == ""
    assert texts.continuation([*before, *face[:cut]], face[cut:]) == "😀"
    assert texts.continuation(face * 9 + face[:cut], face[cut:]) == "😀"
    assert texts.continuation(before, [*face, *face[:cut]]) == "😀"
    assert texts.continuation(face[cut:], before).endswith("the\n")


@pytest.mark.parametrize(
    ("name", "context", "following", "text"),
    [
        pytest.param("llama", "Hello", ["▁He"], " He", id="a word follows a word"),
        pytest.param("llama", "<s>", ["▁He"], "He", id="the space before the text after a special token"),
        pytest.param("llama", "", ["▁He"], "He", id="the space before a text"),
        pytest.param("metaspace", "the", ["▁Hello"], " Hello", id="Metaspace: a word follows a word"),
        pytest.param("metaspace", "</s>", ["▁Hello"], " Hello", id="Metaspace: a space after a special token"),
        pytest.param("metaspace", "", ["▁Hello"], "Hello", id="Metaspace: the space before a text"),
        pytest.param("wordpiece", "the", ["##o", "hello"], "o hello", id="parts of words"),
        pytest.param("demo", "the", ["<|im_end|>", "<tool_call>", "Ġthe"], "<tool_call> the", id="added tokens"),
    ],
)
def test_a_continuation_has_its_spaces(name: str, context: str, following: list[str], text: str) -> None:
    ids = [id_of(name, token) for token in following]
    assert TEXTS[name].continuation(ids_of(name, context), ids) == text


@pytest.mark.parametrize("name", ["demo", *SENTENCEPIECE])
def test_continuations_of_each_token_make_up_the_text(name: str) -> None:
    ids = array("i", ids_of(name, f"the\n{SIX_SCRIPTS}"))
    texts = TEXTS[name]
    assert "".join(texts.continuation(ids[:index], ids[index : index + 1]) for index in range(len(ids))) == (
        f"the\n{SIX_SCRIPTS}"
    )


def test_texts_do_not_depend_on_what_a_tokenizer_adds() -> None:
    tokenizer = exact(make_tokenizer("llama"))
    tokenizer.enable_truncation(1)
    assert TokenTexts(tokenizer).text(id_of("llama", "▁He")) == " He"
