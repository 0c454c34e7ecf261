"""Vocabularies for compilers: the demo model's, as its engine makes it, and one of single bytes."""

import functools
import json

import xgrammar
from transformers import PreTrainedTokenizerFast

from config.models import PROJECT_ROOT
from deployments.guided.artifact import vocabulary_of
from deployments.guided_types import GrammarSpec, Vocabulary

DEMO_SIZE = 4096
DEMO_EOS = 2
NUM_BYTES = 256

PERSON = GrammarSpec(
    "json", json.dumps({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]})
)


def optional_properties(number: int) -> GrammarSpec:
    """Make a schema whose compiled form grows with the square of its length."""
    properties = {f"p{i}": {"type": "string"} for i in range(number)}
    return GrammarSpec("json", json.dumps({"type": "object", "properties": properties}))


SLOW = optional_properties(3000)
"""xgrammar compiles it for many seconds; llguidance takes it, and gives up on the way."""
SLOW_FOR_ONE = GrammarSpec("json", json.dumps({"type": "string", "pattern": "^" + "[a-z ]{0,1000}" * 3 + "$"}))
"""xgrammar takes seconds for the mask after a long token; llguidance has no trouble with it."""
SLOW_MASKS = GrammarSpec("grammar", "root ::= line line\nline ::= " + "[^\\n]{0,1000} " * 3)
"""Compiled at once; the mask after a long token takes seconds."""


@functools.cache
def demo_vocabulary() -> Vocabulary:
    path = PROJECT_ROOT / "config/demo_model/tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token="<|im_end|>")  # type: ignore[no-untyped-call]
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=DEMO_SIZE)
    return vocabulary_of(info.serialize_json(), path.read_text(encoding="utf-8"), DEMO_SIZE, DEMO_EOS)


@functools.cache
def bytes_vocabulary() -> Vocabulary:
    """Make one that only xgrammar can use."""
    tokens = [*(bytes([byte]) for byte in range(NUM_BYTES)), b"</s>"]
    info = xgrammar.TokenizerInfo(tokens, vocab_type=xgrammar.VocabType.RAW, stop_token_ids=[NUM_BYTES])
    return vocabulary_of(info.serialize_json(), "", len(tokens), NUM_BYTES)
