"""llguidance inside vLLM's engine core, beside xgrammar: both fill masks of the same layout."""

import copy
import logging
from typing import Any

import llguidance
from vllm.v1.structured_output.backend_guidance import GuidanceBackend, GuidanceGrammar

from deployments.guided.references import MAX_ITEMS

logger = logging.getLogger("vllm.guided")


class LlguidanceMatchers:
    """Makes matchers over one model's tokenizer, one for each request."""

    def __init__(self, tokenizer: Any, vocab_size: int) -> None:
        self._tokenizer = None
        self.tokenizer_json = ""
        self.eos_token_id = int(tokenizer.eos_token_id or 0)
        self._vocab_size = vocab_size
        try:
            # Takes up to a second for large vocabularies: now, not when the first request waits.
            if GuidanceBackend.is_tokenizer_supported(tokenizer):
                self._tokenizer = GuidanceBackend._build_ll_tokenizer(tokenizer, vocab_size)
                self.tokenizer_json = description(tokenizer)
        except Exception:
            logger.exception("llguidance cannot read this tokenizer: constraints that need it are refused")

    def load(self, grammar: str) -> Any:
        """Return what matchers are copied from; raises ValueError when llguidance does not accept the grammar."""
        if self._tokenizer is None:
            raise ValueError("llguidance cannot read this model's tokenizer")
        limits = llguidance.LLParserLimits(max_items_in_row=MAX_ITEMS)
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    def matcher(self, loaded: Any) -> "LlguidanceGrammar":
        return LlguidanceGrammar(loaded.deep_copy(), self._tokenizer, self._vocab_size)


class LlguidanceGrammar(GuidanceGrammar):  # type: ignore[misc]
    """A matcher whose error ends the request as one.

    llguidance allows only the end of the text once it has failed, on a limit of its own for instance: taken for an
    answer, that would be one that stops short and says `stop`.
    """

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        if self.ll_matcher.is_error():
            logger.warning("request %s: llguidance failed: %s", request_id, self.ll_matcher.get_error())
            return False
        return bool(super().accept_tokens(request_id, tokens)) and not self.ll_matcher.is_error()


def description(tokenizer: Any) -> str:
    """Return the `tokenizer.json` that `llguidance.hf.from_tokenizer` builds from, added tokens included; "": none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return ""
    backend = copy.copy(backend)
    backend.no_padding()
    backend.no_truncation()
    text: str = backend.to_str()
    return text
