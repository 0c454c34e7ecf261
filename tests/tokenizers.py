"""Small tokenizers of the families that models use, and documents that are hard on them."""

import functools
import json
from typing import Any

from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from config.models import PROJECT_ROOT

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPECIALS = ["<unk>", "<s>", "</s>"]
WORDS = ["Hello world, a quick brown fox jumps", "été à la mer", "the one  two   three\nfour", "日本語 привет"]
SIX_SCRIPTS = "Grüße привет שלום नमस्ते 日本語 안녕 👩‍👩‍👧‍👦 👍🏽 e\u0301 🇪🇺 end"

CHATS = ["", "<s>", "<|im_start|>assistant\n", "the word\n</s>", "the\n", "été\n日本語\n"]
"""What may come before a document: nothing that makes one token with its first characters."""

BYTE_LEVEL = ["demo", "nfc", "greedy"]
SENTENCEPIECE = ["llama", "metaspace"]
NAMES = [*BYTE_LEVEL, *SENTENCEPIECE, "wordpiece"]


@functools.cache
def make_tokenizer(name: str) -> Tokenizer:
    """Return one of NAMES; tests share it and leave it as it is."""
    made: Tokenizer = MAKERS[name]()
    return made


def demo() -> Tokenizer:
    return Tokenizer.from_file(str(PROJECT_ROOT / "config/demo_model/tokenizer.json"))


def nfc() -> Tokenizer:
    """Return the demo model's with a normalizer, as Qwen's have it."""
    tokenizer = demo()
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def greedy() -> Tokenizer:
    """Return the demo model's with added tokens that take spaces and match what is normalized."""
    tokenizer = nfc()
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<|assistant|>", rstrip=True)])
    tokenizer.add_tokens([AddedToken("été", normalized=True), AddedToken("word", single_word=True)])
    return tokenizer


def llama() -> Tokenizer:
    """Return one like Llama 2's: a space before the text and after each added token, bytes for rare characters."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=450, special_tokens=[*SPECIALS, *BYTES], limit_alphabet=40, show_progress=False
    )
    tokenizer.train_from_iterator(WORDS[:3] * 20, trainer)
    described: dict[str, Any] = json.loads(tokenizer.to_str())
    described["added_tokens"] = [token for token in described["added_tokens"] if token["content"] in SPECIALS]
    return Tokenizer.from_str(json.dumps(described))


def metaspace() -> Tokenizer:
    """Return one like T5's or Mistral's: a space before the text, none after added tokens."""
    letters = sorted({letter for words in WORDS[:3] for letter in words.replace(" ", "▁")})
    pieces = sorted({f"▁{word}" for words in WORDS for word in words.split()})
    vocabulary = [(entry, 0.0) for entry in [*SPECIALS, *BYTES]]
    vocabulary += [(piece, -3.0) for piece in pieces] + [(letter, -6.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(vocabulary, 0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=True)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace("▁", prepend_scheme="first"), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(special, normalized=False) for special in SPECIALS])
    return tokenizer


def wordpiece() -> Tokenizer:
    """Return one like BERT's: lower case, no accents, no spaces, `[UNK]` for rare characters."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece("##", cleanup=True)
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    tokenizer.train_from_iterator(WORDS * 5, trainer)
    return tokenizer


MAKERS = {
    "demo": demo,
    "nfc": nfc,
    "greedy": greedy,
    "llama": llama,
    "metaspace": metaspace,
    "wordpiece": wordpiece,
}

characters = st.characters(exclude_categories=["Cs"])
pieces = st.sampled_from(
    [
        *(
            "Hello world",
            "the",
            "word",
            "été",
            "naïve",
            " ",
            "  ",
            "\n",
            "\r\n",
            "\t",
            "\u00a0",
            "\x00",
            "\ufeff",
            "\ufffd",
        ),
        *("e\u0301", "\u0301", "\u0315", "\u0300", "ﬁ", "Å", "\u1100\u1161", "\u1161", "\u11a8", "\u093c", "\ud7b0"),
        *("привет", "שלום", "नमस्ते", "日本語", "안녕", "☃", "👩‍👩‍👧‍👦", "👍🏽", "🇪🇺", "\u200d", "𐍈"),
        *("▁", "Ġ", "<0xE2>", "<|im_start|>", "<|im_end|>", "<|im_", "end|>", "<tool_call>"),
        *("<mask>", "<|assistant|>", "<s>", "</s>", "[CLS]", "[SEP]"),
    ]
)
documents = st.lists(pieces | characters | st.text(characters, max_size=8), max_size=8).map("".join)
"""Any text without lone surrogates, mostly such that is hard on tokenizers."""
