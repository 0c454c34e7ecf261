"""xgrammar and llguidance as one interface: a vocabulary, and matchers that say which tokens may come next."""

import logging
import sys
from types import ModuleType
from typing import Any, Protocol

import llguidance
import numpy as np
from numpy.typing import NDArray

from deployments.guided.references import MAX_ITEMS
from deployments.guided_types import Vocabulary

logger = logging.getLogger("guided")

Bitmask = NDArray[np.int32]
"""One row; bit `i % 32` of word `i // 32` says whether token `i` may come next."""


class MatcherError(Exception):
    """The compiler gives up on an answer that it took until then; says why."""


class Matcher(Protocol):
    """One answer that is being written under a constraint."""

    def fill(self, bitmask: Bitmask) -> None:
        """Write which tokens may come next; raises MatcherError."""

    def accept(self, token_id: int) -> bool:
        """Go on with a token; returns False when it may not come next, raises MatcherError."""


class XgrammarMatcher:
    def __init__(self, compiled: Any) -> None:
        import xgrammar

        self._matcher = xgrammar.GrammarMatcher(compiled)

    def fill(self, bitmask: Bitmask) -> None:
        self._matcher.fill_next_token_bitmask(bitmask, 0)

    def accept(self, token_id: int) -> bool:
        return bool(self._matcher.accept_token(token_id))


class LlguidanceMatcher:
    """Copies share what was computed for any of them, as they do in the engine."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher
        self._check()

    @classmethod
    def build(cls, tokenizer: Any, grammar: str) -> "LlguidanceMatcher":
        """Compile a grammar; raises MatcherError."""
        limits = llguidance.LLParserLimits(max_items_in_row=MAX_ITEMS)
        return cls(llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=limits))

    def copy(self) -> "LlguidanceMatcher":
        return LlguidanceMatcher(self._matcher.deep_copy())

    def fill(self, bitmask: Bitmask) -> None:
        self._matcher.unsafe_compute_mask_ptr(bitmask.ctypes.data, bitmask.nbytes)
        self._check()

    def accept(self, token_id: int) -> bool:
        accepted = bool(self._matcher.consume_token(token_id))
        self._check()
        return accepted

    def _check(self) -> None:
        # After an error only the end of the text is allowed: that would pass for a complete answer.
        if self._matcher.is_error():
            raise MatcherError(self._matcher.get_error())


class LoadedVocabulary:
    """A vocabulary as both compilers want it. Takes up to seconds to make; then it is only read."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        import xgrammar

        self.size = vocabulary.vocab_size
        self.tokenizer_info = xgrammar.TokenizerInfo.deserialize_json(vocabulary.tokenizer_info)
        self.stop_token_ids = [*self.tokenizer_info.stop_token_ids, vocabulary.eos_token_id]
        self.lengths = np.array([len(token) for token in self.tokenizer_info.decoded_vocab], dtype=np.int32)
        """How many bytes each token stands for."""
        self.ll_tokenizer = _ll_tokenizer(vocabulary)
        """None when llguidance cannot read the tokenizer."""

    def bitmask(self) -> Bitmask:
        return np.full((1, (self.size + 31) // 32), -1, dtype=np.int32)


def _ll_tokenizer(vocabulary: Vocabulary) -> Any:
    if not vocabulary.tokenizer_json:
        return None
    text, size, end = vocabulary.tokenizer_json, vocabulary.vocab_size, vocabulary.eos_token_id
    try:
        return llguidance.LLTokenizer(text, n_vocab=size, eos_token=end)
    except Exception:
        logger.exception("llguidance cannot read a tokenizer: constraints that need it are refused")
        return None


def import_xgrammar_alone() -> None:
    """Import xgrammar without PyTorch and transformers, which it needs for what the pool does not do.

    They take 200 MB of each process, and seconds. Only for processes of our own: what needs a tensor does not work.
    Raises whatever comes of it when xgrammar has come to need more; the process must then start anew, and import all.
    """
    # Python notes modules that cannot be imported as None. The bindings under xgrammar do without PyTorch then.
    sys.modules["torch"] = None  # type: ignore[assignment]
    import tvm_ffi  # noqa: F401

    stand_ins = _stand_ins()
    sys.modules |= stand_ins
    try:
        import xgrammar  # noqa: F401
    finally:
        for name in stand_ins:
            del sys.modules[name]


def _stand_ins() -> dict[str, ModuleType]:
    """Make what xgrammar's modules name while they are imported, and empty ones for those that need more."""
    made = {name: ModuleType(name) for name in ("torch", "transformers", "xgrammar.testing", "xgrammar.contrib.hf")}
    vars(made["torch"]).update(Tensor=object, int32=None, tensor=lambda *_, **__: None)
    vars(made["transformers"]).update(PreTrainedTokenizerBase=object, PreTrainedTokenizerFast=object)
    return made
