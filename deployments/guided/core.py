"""vLLM's xgrammar backend with a shelf of compiled constraints in front; imported in engine cores only."""

import os
import threading
from typing import Any

import xgrammar
from vllm.v1.structured_output.backend_types import StructuredOutputOptions
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend, XgrammarGrammar

from deployments.guided.artifact import unpack
from deployments.guided.matchers import LlguidanceMatchers
from deployments.guided.references import SWITCH, key_of
from deployments.guided.small import is_small_grammar, is_small_schema


class GuidedBackend(XgrammarBackend):  # type: ignore[misc]
    """vLLM's xgrammar backend, with a shelf of compiled constraints in front."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._strict = os.environ.get(SWITCH) == "strict"
        self._tokenizer_info = self.compiler.compile_grammar('root ::= "a"').tokenizer_info
        self._llguidance = LlguidanceMatchers(self.tokenizer, self.vocab_size)
        self._lock = threading.Lock()
        self._shelf: dict[str, Any] = {}
        self._num_used = self._num_compiled = 0

    def vocabulary(self) -> dict[str, Any]:
        return {
            "tokenizer_info_json": self._tokenizer_info.serialize_json(),
            "tokenizer_json": self._llguidance.tokenizer_json,
            "vocab_size": self.vocab_size,
            "eos_token_id": self._llguidance.eos_token_id,
        }

    def load(self, key: str, artifact: bytes) -> None:
        found = unpack(artifact)
        if found.compiler == "llguidance":
            loaded = self._llguidance.load(found.text)
        else:
            loaded = xgrammar.CompiledGrammar.deserialize_json(found.text, self._tokenizer_info)
        with self._lock:
            self._shelf[key] = loaded

    def drop(self, keys: list[str]) -> None:
        with self._lock:
            for key in keys:
                self._shelf.pop(key, None)

    def counts(self) -> dict[str, int]:
        return {"num_held": len(self._shelf), "num_used": self._num_used, "num_compiled": self._num_compiled}

    def compile_grammar(self, request_type: Any, grammar_spec: str, stop_token_ids: set[int] | None = None) -> Any:
        key = key_of(grammar_spec) if request_type == StructuredOutputOptions.GRAMMAR else None
        if key is None:
            return self._compile_here(request_type, grammar_spec, stop_token_ids)
        with self._lock:
            loaded = self._shelf.get(key)
            self._num_used += 1
        if loaded is None:
            raise LookupError(f"no compiled constraint {key} is loaded")
        if not isinstance(loaded, xgrammar.CompiledGrammar):
            return self._llguidance.matcher(loaded)
        stops = list(stop_token_ids) if stop_token_ids else None
        matcher = xgrammar.GrammarMatcher(loaded, override_stop_tokens=stops)
        return XgrammarGrammar(matcher=matcher, vocab_size=self.vocab_size, ctx=loaded)

    def _compile_here(self, request_type: Any, text: str, stop_token_ids: set[int] | None) -> Any:
        if self._strict and not is_small_here(request_type.name, text):
            raise PermissionError("this engine compiles no constraints of requests, only the pool does")
        self._num_compiled += 1
        return super().compile_grammar(request_type, text, stop_token_ids)


def is_small_here(kind: str, text: str) -> bool:
    """Say whether a specification, as vLLM passes it on, may be compiled in an engine core."""
    if kind == "JSON":
        return is_small_schema(text)
    return kind == "JSON_OBJECT" or (kind == "GRAMMAR" and is_small_grammar(text))
