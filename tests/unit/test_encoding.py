import pytest
from hypothesis import given, settings
from tokenizers import processors

from deployments.tokenizer.encoding import Encoded, encode_after, exact
from deployments.tokenizer.offsets import Span
from tests.tokenizers import BYTE_LEVEL, NAMES, SENTENCEPIECE, SIX_SCRIPTS, documents, make_tokenizer

each_tokenizer = pytest.mark.parametrize("name", NAMES)


def encode(name: str, prefix: str, document: str) -> Encoded:
    return encode_after(make_tokenizer(name), prefix, document)


def decode(name: str, ids: "list[int]") -> str:
    return make_tokenizer(name).decode(ids, skip_special_tokens=False)


def ids_of(name: str, text: str) -> list[int]:
    return list(make_tokenizer(name).encode(text, add_special_tokens=False).ids)


def pieces(document: str, spans: list[Span]) -> list[str]:
    return [document[span.start : span.end] for span in spans]


@each_tokenizer
@given(prefix=documents, document=documents)
@settings(max_examples=60)
def test_spans_cover_the_document_and_its_tokens(name: str, prefix: str, document: str) -> None:
    encoded = encode(name, prefix, document)
    spans = encoded.spans
    assert bool(spans) == bool(document and len(encoded.document_ids))
    if spans:
        assert "".join(pieces(document, spans)) == document
        edges = [(span.start, span.first) for span in spans] + [(len(document), len(encoded.document_ids))]
        assert edges[0] == (0, 0)
        assert [(span.end, span.last) for span in spans] == edges[1:]
        assert all(span.start < span.end and span.first < span.last for span in spans)


@each_tokenizer
@given(prefix=documents, document=documents)
@settings(max_examples=60)
def test_the_tokens_are_those_of_both_texts_as_one_or_apart(name: str, prefix: str, document: str) -> None:
    encoded = encode(name, prefix, document)
    both = [*encoded.prefix_ids, *encoded.document_ids]
    assert both in (ids_of(name, prefix + document), ids_of(name, prefix) + ids_of(name, document))


@pytest.mark.parametrize("name", BYTE_LEVEL)
@given(prefix=documents, document=documents)
@settings(max_examples=60)
def test_no_character_of_one_is_in_a_token_of_the_other(name: str, prefix: str, document: str) -> None:
    encoded = encode(name, prefix, document)
    if prefix.endswith(" ") and encoded.prefix_ids.tolist() == ids_of(name, prefix[:-1]):
        prefix, document = prefix[:-1], " " + document  # the one character that may be, see below
    assert decode(name, list(encoded.prefix_ids)) == decode(name, ids_of(name, prefix))
    assert decode(name, list(encoded.document_ids)) == decode(name, ids_of(name, document))


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_each_span_is_whole_characters(name: str) -> None:
    encoded = encode(name, "<|im_start|>assistant\n", SIX_SCRIPTS)
    assert encoded.document_ids.tolist() == ids_of(name, SIX_SCRIPTS)
    for span, piece in zip(encoded.spans, pieces(SIX_SCRIPTS, encoded.spans), strict=True):
        text = decode(name, encoded.document_ids[span.first : span.last].tolist())
        assert "\ufffd" not in text
        assert name != "demo" or text == piece
    assert {"п", "日", "👍", "\u200d", " end"} <= {*pieces(SIX_SCRIPTS, encoded.spans)}


@pytest.mark.parametrize("name", SENTENCEPIECE)
def test_no_space_is_put_before_a_document_that_continues_a_text(name: str) -> None:
    encoded = encode(name, "the\n", "one  two")
    assert encoded.prefix_ids.tolist() + encoded.document_ids.tolist() == ids_of(name, "the\none  two")
    assert decode(name, encoded.prefix_ids.tolist() + encoded.document_ids.tolist()) == "the\none  two"


@pytest.mark.parametrize(
    ("name", "prefix", "document"),
    [("llama", "[/INST] ", "Hello"), ("demo", "a ", "fox"), ("greedy", "a ", "<mask>")],
)
def test_the_space_that_a_chat_ends_with_may_be_the_first_tokens(name: str, prefix: str, document: str) -> None:
    encoded = encode(name, prefix, document)
    assert [*encoded.prefix_ids, *encoded.document_ids] == ids_of(name, prefix + document)
    assert (encoded.spans[0].start, encoded.spans[-1].end) == (0, len(document))


@pytest.mark.parametrize(
    ("name", "prefix", "document"),
    [
        pytest.param("demo", "<|im_", "end|>", id="half of a special token"),
        pytest.param("demo", "the qui", "ck one", id="half of a word"),
        pytest.param("greedy", "<|assistant|>", "\n the", id="a token that takes the space after it"),
        pytest.param("nfc", "e", "\u0301t", id="a letter and its accent"),
        pytest.param("nfc", "a\u0315", "\u0300", id="accents that change places"),
        pytest.param("nfc", "\u1100", "\u1161\u11a8", id="letters of a Korean syllable"),
        pytest.param("metaspace", "語", "日", id="rare characters in one piece"),
        pytest.param("wordpiece", "hel", "lo", id="half of a word in lower case"),
    ],
)
def test_what_would_be_one_token_is_encoded_apart(name: str, prefix: str, document: str) -> None:
    encoded = encode(name, prefix, document)
    assert encoded.prefix_ids.tolist() == ids_of(name, prefix)
    assert encoded.document_ids.tolist() == ids_of(name, document)
    assert encoded.spans[0].start == 0
    assert encoded.spans[-1].end == len(document)


def test_special_tokens_in_a_document_are_special() -> None:
    encoded = encode("demo", "x\n", "a<|im_end|>b")
    assert make_tokenizer("demo").token_to_id("<|im_end|>") in encoded.document_ids
    assert pieces("a<|im_end|>b", encoded.spans) == ["a", "<|im_end|>", "b"]


@each_tokenizer
def test_there_may_be_no_document(name: str) -> None:
    encoded = encode(name, "the one ", "")
    assert encoded == Encoded(encoded.prefix_ids, encoded.document_ids[:0], [])
    assert encoded.prefix_ids.tolist() == ids_of(name, "the one ")


def test_a_document_may_be_no_tokens() -> None:
    assert encode("wordpiece", "[CLS]", " \x00 ").spans == []
    assert encode("wordpiece", "[CLS]", "\u0301").prefix_ids.tolist() == ids_of("wordpiece", "[CLS]")


def test_an_exact_copy_adds_and_trims_nothing() -> None:
    tokenizer = exact(make_tokenizer("demo"))
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing("<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]),
        ]
    )
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    described = tokenizer.to_str()
    encoding = exact(tokenizer).encode(" the one" * 4)
    assert encoding.ids == ids_of("demo", " the one" * 4)
    assert encoding.offsets[0] == (0, 4)
    assert tokenizer.to_str() == described
    assert len(tokenizer.encode(" the one" * 4).ids) == 9
