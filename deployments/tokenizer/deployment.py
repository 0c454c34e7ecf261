"""The Tokenizer deployment: what the model thinks of a text, worked out beside the engines. CPU only."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import msgspec
from ray import serve

from config.writing import WritingSettings
from deployments.access_log import keep_off_stderr
from deployments.analysis_types import (
    AnalysisRequest,
    BranchesQuestion,
    HighlightsQuestion,
    LogprobsQuestion,
    Question,
)
from deployments.engine.directory import ModelDirectory
from deployments.errors import EngineUnavailableError, InvalidRequestError, OverloadedError
from deployments.tokenizer.analysis import Analyst, add
from deployments.tokenizer.loading import Tokenizers, transformers
from deployments.tokenizer.metrics import Metrics
from deployments.types import HttpHead, TokenizerSource, Usage

JSON = HttpHead(200, ((b"content-type", b"application/json"),))
PRELOAD_TIMEOUT_S = 30
"""A hub that does not answer must not keep a replica from the models that are there."""
EVENTS = HttpHead(200, ((b"content-type", b"text/event-stream; charset=utf-8"),))


@dataclass
class Slots:
    """What is under way for one model."""

    scorings: asyncio.Semaphore
    taken: int = 0


@serve.deployment
class Tokenizer:
    """Answers the writing tools' questions about every model, with their tokenizers and calls to their engines."""

    async def __init__(self, settings: WritingSettings, discovery_interval_s: float) -> None:  # type: ignore[misc]  # Serve awaits it
        keep_off_stderr()
        self._settings = settings
        self._metrics = Metrics()
        self._models = ModelDirectory(discovery_interval_s)
        self._tokenizers = Tokenizers(settings.max_tokenizers)
        self._slots: dict[str, Slots] = {}
        self._seen: set[TokenizerSource] = set()
        await asyncio.to_thread(transformers)
        with contextlib.suppress(Exception):
            await self._models.refresh()
        self._preloading = asyncio.create_task(self._preload())
        await asyncio.wait({self._preloading}, timeout=PRELOAD_TIMEOUT_S)
        self._watching = asyncio.create_task(self._models.watch(self._keep_loaded))

    async def answer(self, request: AnalysisRequest) -> AsyncIterator[HttpHead | bytes | Usage]:
        """Answer a question: an HttpHead, the body's bytes, then what it cost; raises ServingError before the head."""
        question = request.question
        with self._metrics.watched(request.model, question) as used, self._slot(request.model) as scorings:
            analyst = await self._analyst(request.model, scorings)
            if isinstance(question, HighlightsQuestion) and question.is_stream:
                async for item in self._streamed(analyst, question):
                    if isinstance(item, Usage):
                        used(item)
                    yield item
                return
            body, usage = await answered(analyst, question)
            used(usage)
            yield JSON
            yield body
            yield usage

    async def _streamed(
        self, analyst: Analyst, question: HighlightsQuestion
    ) -> AsyncIterator[HttpHead | bytes | Usage]:
        total = Usage(0, 0)
        is_first = True
        async for items, usage in analyst.highlights(question):
            total = add(total, usage)
            if is_first:
                yield EVENTS
            is_first = False
            yield b"data: " + await asyncio.to_thread(msgspec.json.encode, {"highlights": items}) + b"\n\n"
        if is_first:
            yield EVENTS
        yield b"data: [DONE]\n\n"
        yield total

    @contextlib.contextmanager
    def _slot(self, model: str) -> Iterator[asyncio.Semaphore]:
        """Count a question while the block runs; gives what bounds the model's scorings."""
        slots = self._slots.setdefault(model, Slots(asyncio.Semaphore(self._settings.max_scorings_per_model)))
        if slots.taken >= self._settings.max_concurrent_per_model:
            text = f"Too many questions about the texts of `{model}` are under way. Retry later."
            raise OverloadedError(text, "model", self._settings.retry_after_s)
        slots.taken += 1
        try:
            yield slots.scorings
        finally:
            slots.taken -= 1
            if not slots.taken:
                del self._slots[model]

    async def _analyst(self, name: str, scorings: asyncio.Semaphore) -> Analyst:
        model = self._models.models().get(name)
        if model is None:  # the gateway knows it already
            await self._models.refresh()
            model = self._models.models().get(name)
        if model is None:
            raise EngineUnavailableError(f"The model `{name}` is not known yet. Retry.", "model", 1)
        info = model.info or await model.client.info()
        if info.tokenizer is None:
            raise InvalidRequestError(f"The model `{name}` has no tokenizer for this, or generates no text.", "model")
        tokenizer = await self._tokenizers.get(info.tokenizer)
        return Analyst(name, info.max_model_len, tokenizer, model.client, self._settings, scorings)

    def _keep_loaded(self) -> None:
        if self._preloading.done():
            self._preloading = asyncio.create_task(self._preload())

    async def _preload(self) -> None:
        """Load the tokenizers of new models before anybody asks: the first request is as fast as the tenth."""
        infos = [model.info for model in self._models.models().values() if model.info is not None]
        known = {info.tokenizer for info in infos if info.tokenizer is not None}
        new, self._seen = known - self._seen, known
        for source in new if len(known) <= self._settings.max_tokenizers else ():
            with contextlib.suppress(Exception):  # it is logged; who asks tries again, and is told
                await self._tokenizers.get(source)

    async def __del__(self) -> None:
        self._watching.cancel()
        self._preloading.cancel()


async def answered(analyst: Analyst, question: Question) -> tuple[bytes, Usage]:
    """Answer a question as a whole, in JSON."""
    if isinstance(question, HighlightsQuestion):
        parts, usage = [], Usage(0, 0)
        async for items, cost in analyst.highlights(question):
            if items:  # encoded part by part: the objects of a long document take far more memory
                parts.append(await asyncio.to_thread(msgspec.json.encode, items))
            usage = add(usage, cost)
        return b'{"highlights":[' + b",".join(part[1:-1] for part in parts) + b"]}", usage
    if isinstance(question, BranchesQuestion):
        body, usage = await analyst.branches(question)
    elif isinstance(question, LogprobsQuestion):
        body, usage = await analyst.logprobs(question)
    else:
        body, usage = await analyst.revisions(question)
    return await asyncio.to_thread(msgspec.json.encode, body), usage
