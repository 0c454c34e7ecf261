"""The engine core's side of guided decoding: constraints that others compiled, found by their names.

Runs in each engine core's process, through vLLM's entry point `vllm.general_plugins`. What a replica loads here has
been compiled and tried out by the pool; a request then carries a reference, and the core compiles nothing. When vLLM
has changed so that this cannot be, it says so once and leaves vLLM as it is: replicas notice, and let vLLM compile.
"""

import logging
import os
from concurrent.futures import Future
from typing import Any

from deployments.guided.references import SWITCH

logger = logging.getLogger("vllm.guided")


def install() -> None:
    """Put our backend in place of vLLM's xgrammar one, in this process."""
    if os.environ.get(SWITCH) not in ("strict", "lenient"):
        return
    try:
        _install()
    except Exception:
        logger.exception("vLLM is not as expected: constraints are compiled in the engine, as without this plugin")


def _install() -> None:
    import vllm.v1.structured_output as package
    from vllm.v1.engine.core import EngineCore

    from deployments.guided.core import GuidedBackend

    manager = package.StructuredOutputManager
    init = manager.__init__

    def init_with_backend(self: Any, vllm_config: Any) -> None:
        init(self, vllm_config)
        config = vllm_config.model_config
        is_xgrammar = vllm_config.structured_outputs_config.backend == "xgrammar"
        if config.runner_type != "generate" or config.skip_tokenizer_init or not is_xgrammar:
            return
        try:
            self.backend = GuidedBackend(vllm_config, tokenizer=self.tokenizer, vocab_size=config.get_vocab_size())
        except Exception:
            logger.exception("xgrammar cannot read this tokenizer: vLLM is left as it is")

    manager.__init__ = init_with_backend
    EngineCore.guided_vocabulary = guided_vocabulary
    EngineCore.guided_load = guided_load
    EngineCore.guided_drop = guided_drop
    EngineCore.guided_counts = guided_counts


def guided_vocabulary(core: Any) -> dict[str, Any]:
    """Utility call: return what compilers must know of the tokens; raises when constraints cannot be loaded here."""
    found: dict[str, Any] = core.structured_output_manager.backend.vocabulary()
    return found


def guided_load(core: Any, key: str, artifact: bytes) -> "Future[None]":
    """Utility call: have a compiled constraint ready for requests. The core goes on meanwhile.

    Raises BadArtifact, or what the compiler's own reader raises.
    """
    manager = core.structured_output_manager
    loading: Future[None] = manager.executor.submit(manager.backend.load, key, artifact)
    return loading


def guided_drop(core: Any, keys: list[str]) -> None:
    """Utility call: forget constraints. Those that are not there are passed over."""
    core.structured_output_manager.backend.drop(keys)


def guided_counts(core: Any) -> dict[str, int]:
    """Utility call: how many constraints are held, how many times one was used, and how many were compiled here."""
    counts: dict[str, int] = core.structured_output_manager.backend.counts()
    return counts
