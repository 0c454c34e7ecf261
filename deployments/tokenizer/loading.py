"""Tokenizers by their source: a bounded number in memory, each loaded once, off the event loop."""

import asyncio
import contextlib
import logging
import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tokenizers

from deployments.errors import EngineUnavailableError, InvalidRequestError
from deployments.tokenizer.encoding import exact
from deployments.tokenizer.render import render
from deployments.tokenizer.texts import TokenTexts
from deployments.types import TokenizerSource

logger = logging.getLogger("ray.serve")

RETRY_AFTER_S = 5


@dataclass(frozen=True)
class LoadedTokenizer:
    """One model's tokenizer. May be used by several threads at once: nothing here changes it."""

    source: TokenizerSource
    chat: Any
    """Transformers' tokenizer, for chat templates."""
    exact: tokenizers.Tokenizer
    """The same without what it adds and trims: its offsets are those of the text."""
    texts: TokenTexts


class Tokenizers:
    """A cache of `load`, which is called in a thread; who asks for what is being loaded waits for the same load."""

    def __init__(self, most: int, load: "Callable[[TokenizerSource], LoadedTokenizer] | None" = None) -> None:
        self._most = most
        self._load = load or load_tokenizer
        self._loads: OrderedDict[TokenizerSource, asyncio.Future[LoadedTokenizer]] = OrderedDict()

    async def get(self, source: TokenizerSource) -> LoadedTokenizer:
        """Return a tokenizer; raises EngineUnavailableError or InvalidRequestError when it cannot be loaded."""
        loading = self._loads.get(source)
        if loading is None:
            loading = asyncio.ensure_future(asyncio.to_thread(self._load, source))
            loading.add_done_callback(lambda done: self._forget_failure(source, done))
            self._loads[source] = loading
            while len(self._loads) > self._most:
                self._loads.popitem(last=False)
        self._loads.move_to_end(source)
        return await asyncio.shield(loading)  # one who leaves must not end it for the others

    def _forget_failure(self, source: TokenizerSource, done: "asyncio.Future[LoadedTokenizer]") -> None:
        if (done.cancelled() or done.exception() is not None) and self._loads.get(source) is done:
            del self._loads[source]


def load_tokenizer(source: TokenizerSource) -> LoadedTokenizer:
    """Load a tokenizer from its folder or from the Hugging Face hub; its texts are made ready, too."""
    try:
        chat = transformers().AutoTokenizer.from_pretrained(
            source.path, revision=source.revision, trust_remote_code=source.trust_remote_code
        )
    except Exception as error:
        logger.exception("the tokenizer %s could not be loaded; it must be readable on this node", source.path)
        text = "The model's tokenizer cannot be loaded; the Tokenizer's log says why."
        raise EngineUnavailableError(text, "model", RETRY_AFTER_S) from error
    try:
        tokenizer = exact(chat.backend_tokenizer)
        texts = TokenTexts(tokenizer)
    except Exception as error:
        logger.exception("the tokenizer %s is of a kind that has no offsets", source.path)
        text = "This model's tokenizer does not say which characters a token stands for."
        raise InvalidRequestError(text, "model") from error
    warm(chat, source, texts)
    return LoadedTokenizer(source, chat, tokenizer, texts)


def warm(chat: Any, source: TokenizerSource, texts: TokenTexts) -> None:
    """Compute what is kept after its first use."""
    len(texts.partial_ids)
    with contextlib.suppress(InvalidRequestError):  # a template that cannot be rendered is refused when it is asked for
        render(chat, source, [("user", "a")])


def transformers() -> Any:
    """Import transformers, which takes seconds, as if there were no PyTorch: 250 MB that no tokenizer needs."""
    is_hidden = "torch" not in sys.modules and "transformers" not in sys.modules
    if is_hidden:
        os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would say in the log what it misses
        sys.modules["torch"] = None  # type: ignore[assignment]  # how Python notes a module that cannot be imported
    try:
        import transformers

        transformers.AutoTokenizer  # noqa: B018  (its parts are imported when they are first read)
        return transformers
    finally:
        if is_hidden:
            del sys.modules["torch"]
