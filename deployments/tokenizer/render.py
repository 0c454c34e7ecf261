"""A conversation as the text that the model reads."""

import json
import uuid
from collections.abc import Sequence
from typing import Any

from deployments.analysis_types import MessageText
from deployments.errors import InvalidRequestError
from deployments.types import TokenizerSource

MARK = f"document-{uuid.uuid4().hex}"
"""Stands for the text that is continued while a chat is rendered. Templates trim and move contents: where a mark of no
spaces ends up is where the text belongs, as it is."""


def render(tokenizer: Any, source: TokenizerSource, messages: Sequence[MessageText]) -> tuple[str, str]:
    """Render a chat with transformers' tokenizer; return what comes before the text that is continued, and that text.

    That text is the last message when it is the assistant's; otherwise it is empty, and a new turn of the assistant
    begins. Raises InvalidRequestError when the template cannot render the conversation.
    """
    *before, (role, content) = messages
    if role != "assistant":
        return apply(tokenizer, source, messages, add_generation_prompt=True), ""
    text = apply(tokenizer, source, [*before, (role, MARK)], add_generation_prompt=False)
    prefix, mark, _ = text.rpartition(MARK)
    if not mark:
        raise InvalidRequestError("This model's chat template leaves out the assistant's message.", "messages")
    return prefix.replace(MARK, content), content  # some templates write a message twice


def apply(tokenizer: Any, source: TokenizerSource, messages: Sequence[MessageText], add_generation_prompt: bool) -> str:
    conversation = [{"role": role, "content": to_content(content, source)} for role, content in messages]
    try:
        text: str = tokenizer.apply_chat_template(
            conversation,
            chat_template=source.chat_template,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            **json.loads(source.template_arguments),
        )
    except Exception as error:  # a template is a program: it may fail in any way
        raise InvalidRequestError(f"The chat template cannot render this conversation: {error}", "messages") from error
    return text


def to_content(content: str, source: TokenizerSource) -> str | list[dict[str, str]]:
    return [{"type": "text", "text": content}] if source.content_format == "openai" else content
