"""The writing tools' bodies and queries as questions for the Tokenizer, checked."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from config.models import GatewaySettings
from deployments.analysis_types import (
    BranchesQuestion,
    HighlightsQuestion,
    LogprobsQuestion,
    MessageText,
    RevisionsQuestion,
)
from deployments.errors import InvalidRequestError, UnprocessableError
from deployments.ingress.schemas.writing import Body, Conversation, Highlights, NextToken, Revisions

B = TypeVar("B", bound=Body)


def checked(schema: type[B], fields: Mapping[str, Any], is_strict: bool) -> B:
    """Read a JSON body (strict: no text is a number) or a query.

    Raises UnprocessableError naming the first field that is wrong.
    """
    try:
        return schema.model_validate(fields, strict=is_strict)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"]))[:128]
        raise UnprocessableError(f"{name}: {first['msg']}", name) from None


def to_highlights(body: Highlights, settings: GatewaySettings, is_stream: bool) -> HighlightsQuestion:
    for name, text in (("doc", body.doc), ("prompt", body.prompt), ("updated_doc", body.updated_doc)):
        check_length(name, text, settings)
    check_range("k", body.k, 1, settings.limits.max_logprobs)
    return HighlightsQuestion(
        doc=body.doc,
        prompt=body.prompt,
        updated_doc=body.updated_doc if body.updated_doc.strip() else body.doc,
        num_alternatives=body.k,
        in_windows=body.window,
        in_utf16=body.offsets == "utf16",
        with_detail=body.detail,
        is_stream=is_stream,
    )


def to_continuations(body: Conversation, settings: GatewaySettings, is_stream: bool) -> BranchesQuestion:
    messages = to_messages(body, settings)
    check_range("n_branch_tokens", body.n_branch_tokens, 1, settings.limits.max_logprobs)
    check_range("n_future_tokens", body.n_future_tokens, 0, settings.writing.max_future_tokens)
    return BranchesQuestion(messages, body.n_branch_tokens, body.n_future_tokens, only_texts=False)


def to_next_token(body: NextToken, settings: GatewaySettings, is_stream: bool) -> BranchesQuestion:
    check_range("k", body.k, 1, settings.limits.max_logprobs)
    texts = (("original_doc", body.original_doc), ("prompt", body.prompt), ("doc_in_progress", body.doc_in_progress))
    for name, text in texts:
        check_length(name, text, settings)
    messages = (("user", f"{body.prompt}\n\n{body.original_doc}"), ("assistant", body.doc_in_progress))
    return BranchesQuestion(messages, body.k, num_future_tokens=1, only_texts=True)


def to_logprobs(body: Conversation, settings: GatewaySettings, is_stream: bool) -> LogprobsQuestion:
    messages = to_messages(body, settings)
    check_range("n_branch_tokens", body.n_branch_tokens, 1, settings.limits.max_logprobs)
    return LogprobsQuestion(messages, body.n_branch_tokens)


def to_revisions(body: Revisions, settings: GatewaySettings, is_stream: bool) -> RevisionsQuestion:
    for name, text in (("doc", body.doc), ("prompt", body.prompt)):
        check_length(name, text, settings)
    check_range("n", body.n, 1, settings.limits.max_choices)
    check_range("max_length", body.max_length, 1, settings.writing.max_revision_tokens)
    return RevisionsQuestion(body.doc, body.prompt, body.n, body.max_length)


def to_messages(body: Conversation, settings: GatewaySettings) -> tuple[MessageText, ...]:
    if not body.messages:
        raise InvalidRequestError("At least one message must be provided.", "messages")
    most = settings.limits.max_messages
    if len(body.messages) > most:
        raise InvalidRequestError(f"`messages` may have {most} entries, not {len(body.messages)}.", "messages")
    check_length("messages", "".join(message.content for message in body.messages), settings)
    return tuple((message.role, message.content) for message in body.messages)


def check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UnprocessableError(f"`{name}` must be between {least} and {most}.", name)


def check_length(name: str, text: str, settings: GatewaySettings) -> None:
    most = settings.writing.max_document_chars
    if len(text) > most:
        raise InvalidRequestError(f"`{name}` may have {most} characters, not {len(text)}.", name)
