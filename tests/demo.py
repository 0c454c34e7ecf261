"""The demo model's tokenizer, as the product loads it; tests share it and leave it as it is."""

import functools
import warnings

from config.models import PROJECT_ROOT
from deployments.tokenizer.loading import LoadedTokenizer, load_tokenizer
from deployments.types import TokenizerSource

DEMO = TokenizerSource(str(PROJECT_ROOT / "config/demo_model"))


@functools.cache
def demo_tokenizer() -> LoadedTokenizer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns while it is imported
        # Not left to the product, which would hide PyTorch from it, and so from the vLLM of other tests.
        import transformers  # noqa: F401

        return load_tokenizer(DEMO)
