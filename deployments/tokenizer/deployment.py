"""The Tokenizer deployment: what the model thinks of a text, worked out beside the engines. CPU only."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import msgspec
from ray import serve

from config.writing import WritingSettings
from deployments.analysis_types import (
    AnalysisRequest,
    BranchesQuestion,
    HighlightsQuestion,
    LogprobsQuestion,
)
from deployments.engine.client import ModelDirectory
from deployments.errors import EngineUnavailableError, InvalidRequestError, OverloadedError, ServingError
from deployments.tokenizer.analysis import Analyst, Answer, add
from deployments.tokenizer.loading import Tokenizers, transformers
from deployments.types import HttpHead, TokenizerSource, Usage

JSON = HttpHead(200, ((b"content-type", b"application/json"),))
EVENTS = HttpHead(200, ((b"content-type", b"text/event-stream; charset=utf-8"),))


@serve.deployment
class Tokenizer:
    """Answers the writing tools' questions about every model, with their tokenizers and calls to their engines."""

    async def __init__(self, settings: WritingSettings, discovery_interval_s: float) -> None:  # type: ignore[misc]  # Serve awaits it
        self._settings = settings
        self._models = ModelDirectory(discovery_interval_s)
        self._tokenizers = Tokenizers(settings.max_tokenizers)
        self._under_way: Counter[str] = Counter()
        self._seen: set[TokenizerSource] = set()
        await asyncio.to_thread(transformers)
        with contextlib.suppress(Exception):
            await self._models.refresh()
            await self._preload()
        self._task = asyncio.create_task(self._models.watch(self._preload))

    async def answer(self, request: AnalysisRequest) -> AsyncIterator[HttpHead | bytes | Usage]:
        """Answer a question: an HttpHead, the body's bytes, then what it cost; raises ServingError before the head."""
        with self._counted(request.model):
            analyst = await self._analyst(request.model)
            question = request.question
            if isinstance(question, HighlightsQuestion) and question.is_stream:
                async for item in self._streamed(analyst, question):
                    yield item
                return
            body, usage = await answered(analyst, request)
            yield JSON
            yield msgspec.json.encode(body)
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
            yield b"data: " + msgspec.json.encode({"highlights": items}) + b"\n\n"
        if is_first:
            yield EVENTS
        yield b"data: [DONE]\n\n"
        yield total

    @contextlib.contextmanager
    def _counted(self, model: str) -> Iterator[None]:
        if self._under_way[model] >= self._settings.max_concurrent_per_model:
            text = f"Too many questions about the texts of `{model}` are under way. Retry later."
            raise OverloadedError(text, "model", self._settings.retry_after_s)
        self._under_way[model] += 1
        try:
            yield
        finally:
            self._under_way[model] -= 1
            if not self._under_way[model]:
                del self._under_way[model]

    async def _analyst(self, name: str) -> Analyst:
        model = self._models.models().get(name)
        if model is None:  # the gateway knows it already: it will be here in a moment
            raise EngineUnavailableError(f"The model `{name}` is not known yet. Retry.", "model", 1)
        info = model.info or await model.client.info()
        if info.tokenizer is None:
            raise InvalidRequestError(f"The model `{name}` has no tokenizer for this, or generates no text.", "model")
        tokenizer = await self._tokenizers.get(info.tokenizer)
        return Analyst(name, info.max_model_len, tokenizer, model.client, self._settings)

    async def _preload(self) -> None:
        """Load the tokenizers of new models before anybody asks: the first request is as fast as the tenth."""
        infos = [model.info for model in self._models.models().values() if model.info is not None]
        known = {info.tokenizer for info in infos if info.tokenizer is not None}
        new, self._seen = known - self._seen, known
        for source in new if len(known) <= self._settings.max_tokenizers else ():
            with contextlib.suppress(ServingError):  # it is logged; who asks tries again, and is told
                await self._tokenizers.get(source)

    async def __del__(self) -> None:
        self._task.cancel()


async def answered(analyst: Analyst, request: AnalysisRequest) -> Answer:
    """Answer a question as a whole."""
    question = request.question
    if isinstance(question, BranchesQuestion):
        return await analyst.branches(question)
    if isinstance(question, LogprobsQuestion):
        return await analyst.logprobs(question)
    if isinstance(question, HighlightsQuestion):
        highlights, usage = [], Usage(0, 0)
        async for items, cost in analyst.highlights(question):
            highlights += items
            usage = add(usage, cost)
        return {"highlights": highlights}, usage
    return await analyst.revisions(question)
