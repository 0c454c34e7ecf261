"""The questions of writing tools, answered with a model's tokenizer and its engine. No Ray in it."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from config.writing import WritingSettings
from deployments.analysis_types import (
    Branches,
    BranchesQuestion,
    BranchRequest,
    HighlightsQuestion,
    LogprobsQuestion,
    MessageText,
    RevisionsQuestion,
    SampleRequest,
    Samples,
    ScoreRequest,
    TokenScores,
)
from deployments.errors import ContextLengthError, InvalidRequestError
from deployments.tokenizer.encoding import Encoded, encode_after, to_ids
from deployments.tokenizer.highlights import Item, to_entries, to_items, to_logprob
from deployments.tokenizer.loading import LoadedTokenizer
from deployments.tokenizer.offsets import Span, to_utf16
from deployments.tokenizer.render import render
from deployments.tokenizer.windows import Window, growing, overlapping, passage
from deployments.types import Usage

MAX_ROUNDS = 4
"""How often more branches are asked for, when some had no text."""
REVISION_SAMPLING: dict[str, Any] = {"temperature": 0.5, "top_k": 50, "top_p": 0.95}

Answer = tuple[dict[str, Any], Usage]


class Engine(Protocol):
    """The token-level calls of a model's engines."""

    async def score(self, request: ScoreRequest) -> TokenScores: ...
    async def branch(self, request: BranchRequest) -> Branches: ...
    async def sample(self, request: SampleRequest) -> Samples: ...


@dataclass(frozen=True, slots=True)
class Part:
    """One engine call of a document that is scored: `spans` begin at token `first` of the prompt."""

    prompt_token_ids: "array[int]"
    first: int
    spans: Sequence[Span]


@dataclass(frozen=True)
class Analyst:
    """Answers questions about one model. Texts are worked on in threads, so that others can be answered meanwhile."""

    model: str
    max_model_len: int
    tokenizer: LoadedTokenizer
    engine: Engine
    settings: WritingSettings
    scorings: asyncio.Semaphore
    """Bounds the documents that are scored at once."""

    async def highlights(self, question: HighlightsQuestion) -> AsyncIterator[tuple[list[Item], Usage]]:
        """Yield the items of `updated_doc` in order: all at once, or in parts when it is long or wanted as a stream."""
        parts = self._parts(question)
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            request = ScoreRequest(part.prompt_token_ids, part.first, question.num_alternatives)
            async with self.scorings:
                scores = await self.engine.score(request)
            yield await asyncio.to_thread(self._items, question, part, scores), scores.usage

    def _items(self, question: HighlightsQuestion, part: Part, scores: TokenScores) -> list[Item]:
        document, texts = question.updated_doc, self.tokenizer.texts
        items = list(to_items(document, part.spans, scores, texts, question.with_detail))
        if question.in_utf16:
            for item, span in zip(items, to_utf16(part.spans, document), strict=True):
                item |= {"start": span.start, "end": span.end}
        return items

    def _parts(self, question: HighlightsQuestion) -> Iterator[Part]:
        prefix, document = self._render(as_chat(question.prompt, question.doc, question.updated_doc))
        encoded = encode_after(self.tokenizer.exact, prefix, document)
        if not encoded.spans:
            return
        if not len(encoded.prefix_ids):
            raise InvalidRequestError("This model's chat template writes nothing before the document.", "prompt")
        num_tokens = len(encoded.prefix_ids) + len(encoded.document_ids)
        if num_tokens >= self.max_model_len:
            if not question.in_windows:
                raise self._too_long(num_tokens, " Send `window: true` to have it scored in parts.")
            yield from self._windows(question, encoded)
        elif question.is_stream:
            for window in growing(encoded.spans, self.settings.stream_first_tokens):
                yield to_part(encoded.prefix_ids, encoded, window)
        else:
            yield to_part(encoded.prefix_ids, encoded, Window(0, 0, len(encoded.document_ids), encoded.spans))

    def _windows(self, question: HighlightsQuestion, encoded: Encoded) -> Iterator[Part]:
        """Cut what is longer than the model's window; one token is left for the engine, which always makes one.

        When the user's turn is too long as well, each part follows the passage of `doc` at the same relative place.
        """
        room, overlap = self.max_model_len - 1, self.settings.window_overlap
        source = encode_after(self.tokenizer.exact, "", question.doc).spans
        num_prompt_tokens = len(self._prefix_ids(question, ""))
        half = (room - num_prompt_tokens) // 2
        if half < room // 8:  # a part for every few tokens would keep the engine busy for hours
            raise self._too_long(num_prompt_tokens, " The prompt leaves too little room for the document.")
        if len(encoded.prefix_ids) <= room // 2 or not source:
            for window in overlapping(encoded.spans, room - len(encoded.prefix_ids), overlap):
                yield to_part(encoded.prefix_ids, encoded, window)
            return
        for window in overlapping(encoded.spans, half, overlap):
            position = (window.start + window.last) / 2 / len(encoded.document_ids)
            prefix_ids = self._passage_ids(question, source, position, room - (window.last - window.start))
            yield to_part(prefix_ids, encoded, window)

    def _passage_ids(
        self, question: HighlightsQuestion, source: Sequence[Span], position: float, room: int
    ) -> "array[int]":
        size = room
        while size > 0:
            start, end = passage(source, size, position)
            prefix_ids = self._prefix_ids(question, question.doc[start:end])
            if len(prefix_ids) <= room:
                return prefix_ids
            size -= max(1, len(prefix_ids) - room)
        raise self._too_long(len(prefix_ids), " The prompt alone leaves no room.")

    def _prefix_ids(self, question: HighlightsQuestion, doc: str) -> "array[int]":
        prefix, _ = self._render(as_chat(question.prompt, doc, question.updated_doc))
        return to_ids(self.tokenizer.exact, prefix)

    async def branches(self, question: BranchesQuestion) -> Answer:
        """Answer with the most likely next tokens that have a text, each with what follows it."""
        room = question.num_future_tokens + 1
        prompt_token_ids = await asyncio.to_thread(self._chat_ids, question.messages, room)
        texts = self.tokenizer.texts
        # What holds only a part of a character has no text unless more follows.
        skip = texts.special_ids if question.num_future_tokens else texts.special_ids | texts.partial_ids
        found: list[tuple[float, int, str]] = []
        usage = Usage(0, 0)
        for _ in range(MAX_ROUNDS):
            asked = question.num_branches - len(found)
            request = BranchRequest(prompt_token_ids, asked, question.num_future_tokens, skip)
            result = await self.engine.branch(request)
            usage = add(usage, result.usage)
            for branch in result.branches:
                if text := texts.continuation(prompt_token_ids, [branch.token_id, *branch.future_ids]):
                    found.append((branch.logprob, branch.token_id, text))
            skip |= {branch.token_id for branch in result.branches}
            if len(found) >= question.num_branches or len(result.branches) < asked:
                break
        found.sort(key=lambda branch: -branch[0])
        if question.only_texts:
            return {"next_tokens": [text for _, _, text in found]}, usage
        continuations = [
            {"doc_text": text, "logprob": to_logprob(logprob), "token_id": token_id}
            for logprob, token_id, text in found
        ]
        return {"continuations": continuations}, usage

    async def logprobs(self, question: LogprobsQuestion) -> Answer:
        """Answer with the distribution that each token of the rendered chat came from, and the one after it."""
        token_ids = await asyncio.to_thread(self._chat_ids, question.messages, 1)
        request = ScoreRequest(token_ids, 1, question.num_alternatives, with_next=True)
        async with self.scorings:
            scores = await self.engine.score(request)
        entries = await asyncio.to_thread(lambda: list(to_entries(token_ids, scores, self.tokenizer.texts)))
        return {"logprobs": entries}, scores.usage

    async def revisions(self, question: RevisionsQuestion) -> Answer:
        """Answer with sampled rewritings of a document."""
        prompt_token_ids = await asyncio.to_thread(self._chat_ids, as_chat(question.prompt, question.doc), 1)
        max_tokens = min(question.max_tokens, self.max_model_len - len(prompt_token_ids))
        request = SampleRequest(prompt_token_ids, question.num_revisions, max_tokens, **REVISION_SAMPLING)
        samples = await self.engine.sample(request)
        continuation = self.tokenizer.texts.continuation
        texts = await asyncio.to_thread(lambda: [continuation(prompt_token_ids, ids) for ids in samples.token_ids])
        return {"revised_docs": [{"doc_text": text} for text in texts]}, samples.usage

    def _chat_ids(self, messages: Sequence[MessageText], room: int) -> "array[int]":
        """Return a chat's token ids; raises ContextLengthError when less than `room` tokens are left."""
        prefix, content = self._render(messages)
        token_ids = to_ids(self.tokenizer.exact, prefix + content)
        if not len(token_ids):
            raise InvalidRequestError("This conversation is no text to the model: there is nothing to continue.")
        if len(token_ids) + room > self.max_model_len:
            raise self._too_long(len(token_ids), f" {room} more are needed.")
        return token_ids

    def _render(self, messages: Sequence[MessageText]) -> tuple[str, str]:
        return render(self.tokenizer.chat, self.tokenizer.source, messages)

    def _too_long(self, num_tokens: int, hint: str) -> ContextLengthError:
        window = f"the context window of `{self.model}` is {self.max_model_len} tokens"
        return ContextLengthError(f"The text has {num_tokens} tokens with its chat template; {window}.{hint}")


def as_chat(prompt: str, doc: str, answer: str | None = None) -> list[MessageText]:
    chat = [("user", f"{prompt}\n\n{doc}")]
    return chat if answer is None else [*chat, ("assistant", answer)]


def to_part(prefix_ids: "array[int]", encoded: Encoded, window: Window) -> Part:
    ids = prefix_ids + encoded.document_ids[window.start : window.last]
    return Part(ids, len(prefix_ids) + window.first - window.start, window.spans)


def add(one: Usage, other: Usage) -> Usage:
    return Usage(one.prompt_tokens + other.prompt_tokens, one.completion_tokens + other.completion_tokens)
