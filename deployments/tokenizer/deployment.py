"""The Tokenizer deployment: what the model thinks of a text, worked out beside the engines. CPU only."""

import asyncio
import contextlib
import logging
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
from deployments.engine.client import Model, ModelDirectory
from deployments.errors import EngineUnavailableError, InvalidRequestError, OverloadedError
from deployments.tokenizer.analysis import Analyst, Answer, add
from deployments.tokenizer.loading import Tokenizers
from deployments.types import HttpHead, Usage

logger = logging.getLogger("ray.serve")

JSON = HttpHead(200, ((b"content-type", b"application/json"),))
EVENTS = HttpHead(200, ((b"content-type", b"text/event-stream; charset=utf-8"),))


@serve.deployment
class Tokenizer:
    """Answers the writing tools' questions about every model, with their tokenizers and calls to their engines."""

    async def __init__(self, settings: WritingSettings, discovery_interval_s: float) -> None:  # type: ignore[misc]  # Serve awaits it
        self._settings = settings
        self._interval_s = discovery_interval_s
        self._models = ModelDirectory(discovery_interval_s)
        self._tokenizers = Tokenizers(settings.max_tokenizers)
        self._under_way: Counter[str] = Counter()
        with contextlib.suppress(Exception):
            await self._models.refresh()
            await self._preload()
        self._tasks = [asyncio.create_task(self._models.watch()), asyncio.create_task(self._keep_loaded())]

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

    async def _keep_loaded(self) -> None:
        """Load the tokenizers of new models before anybody asks: the first request is as fast as the tenth."""
        while True:
            await asyncio.sleep(self._interval_s)
            with contextlib.suppress(EngineUnavailableError):
                await self._preload()

    async def _preload(self) -> None:
        for model in list(self._models.models().values())[: self._settings.max_tokenizers]:
            await self._load(model)

    async def _load(self, model: Model) -> None:
        if model.info is None or model.info.tokenizer is None:
            return
        try:
            await self._tokenizers.get(model.info.tokenizer)
        except Exception as error:  # who asks for it is told
            logger.debug("the tokenizer of %s is not loaded: %s", model.name, error)

    async def check_health(self) -> None:
        """Called by Serve. Nothing here can break without the process."""

    async def __del__(self) -> None:
        for task in self._tasks:
            task.cancel()


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
