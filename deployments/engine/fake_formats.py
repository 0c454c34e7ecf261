"""The fake engine's wire formats: chat completions and completions, as OpenAI and vLLM write them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from deployments.errors import InvalidRequestError

Body = dict[str, Any]


@dataclass(frozen=True)
class Generation:
    """One request to the fake model, checked."""

    id: str
    model: str
    created: int
    prompt_token_ids: list[int]
    max_tokens: int
    seed: int
    n: int
    include_usage: bool

    def usage(self) -> Body:
        prompt, completion = len(self.prompt_token_ids), self.max_tokens * self.n
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}

    def envelope(self, kind: str) -> Body:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


class Format(Protocol):
    """How one route reads prompts and writes answers."""

    id_prefix: str
    limits: tuple[str, ...]
    """Fields that limit the answer's tokens, the first one set wins."""

    def prompt(self, body: Body) -> str | list[int]: ...
    def opening(self, generation: Generation) -> Iterator[Body]: ...
    def delta(self, generation: Generation, text: str) -> Iterator[Body]: ...
    def closing(self, generation: Generation) -> Iterator[Body]: ...
    def whole(self, generation: Generation, text: str) -> Body: ...


class Chat:
    id_prefix = "chatcmpl"
    limits: tuple[str, ...] = ("max_completion_tokens", "max_tokens")

    def prompt(self, body: Body) -> str:
        return join_messages(body)

    def opening(self, generation: Generation) -> Iterator[Body]:
        for index in range(generation.n):
            yield self._chunk(generation, {"index": index, "delta": {"role": "assistant", "content": ""}})

    def delta(self, generation: Generation, text: str) -> Iterator[Body]:
        for index in range(generation.n):
            yield self._chunk(generation, {"index": index, "delta": {"content": text}})

    def closing(self, generation: Generation) -> Iterator[Body]:
        for index in range(generation.n):
            yield self._chunk(generation, {"index": index, "delta": {}, "finish_reason": "length"})
        if generation.include_usage:
            yield {**generation.envelope("chat.completion.chunk"), "choices": [], "usage": generation.usage()}

    def whole(self, generation: Generation, text: str) -> Body:
        message = {"role": "assistant", "content": text}
        choices = [{"index": i, "message": message, "finish_reason": "length"} for i in range(generation.n)]
        return {**generation.envelope("chat.completion"), "choices": choices, "usage": generation.usage()}

    def _chunk(self, generation: Generation, choice: Body) -> Body:
        return {**generation.envelope("chat.completion.chunk"), "choices": [{"finish_reason": None, **choice}]}


class Completion:
    id_prefix = "cmpl"
    limits: tuple[str, ...] = ("max_tokens",)

    def prompt(self, body: Body) -> str | list[int]:
        prompt = body.get("prompt")
        if isinstance(prompt, str) or (isinstance(prompt, list) and all(isinstance(item, int) for item in prompt)):
            return prompt
        raise InvalidRequestError("`prompt` must be a text or a list of token ids", "prompt")

    def opening(self, generation: Generation) -> Iterator[Body]:
        return iter(())

    def delta(self, generation: Generation, text: str) -> Iterator[Body]:
        for index in range(generation.n):
            yield self._chunk(generation, {"index": index, "text": text})

    def closing(self, generation: Generation) -> Iterator[Body]:
        for index in range(generation.n):
            yield self._chunk(generation, {"index": index, "text": "", "finish_reason": "length"})
        if generation.include_usage:
            yield {**generation.envelope("text_completion"), "choices": [], "usage": generation.usage()}

    def whole(self, generation: Generation, text: str) -> Body:
        choices = [{"index": i, "text": text, "finish_reason": "length"} for i in range(generation.n)]
        return {**generation.envelope("text_completion"), "choices": choices, "usage": generation.usage()}

    def _chunk(self, generation: Generation, choice: Body) -> Body:
        return {**generation.envelope("text_completion"), "choices": [{"finish_reason": None, **choice}]}


FORMATS: dict[str, Format] = {"/v1/chat/completions": Chat(), "/v1/completions": Completion()}


def join_messages(body: Body) -> str:
    """Render chat messages as the fake model's prompt; raises InvalidRequestError when there are none."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequestError("`messages` must be a list with at least one message", "messages")
    if not all(isinstance(message, dict) for message in messages):
        raise InvalidRequestError("every message must be an object", "messages")
    return "".join(f"<{message.get('role')}>{message.get('content')}" for message in messages) + "<assistant>"
