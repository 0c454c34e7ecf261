"""What a client is told when the engine's application answers 500, or has no answer yet."""

import json

from deployments.errors import EngineUnavailableError, InternalError, InvalidRequestError, ServingError
from deployments.types import HttpHead


def restated(body: bytes, has_reached_engine: bool) -> ServingError:
    """Turn an answer of 500 into ours.

    When no engine request was made, vLLM failed to read the body, in a way that it did not foresee, and would again:
    that is a 400 with its words. Anything else is a 500 that says nothing.
    """
    if has_reached_engine:
        return InternalError()
    return InvalidRequestError(f"The engine could not make sense of this request: {message_of(body)}")


def died() -> EngineUnavailableError:
    return EngineUnavailableError("The engine died. A replacement is starting; retry.", None, 1)


def refusal(error: ServingError) -> tuple[HttpHead, bytes]:
    """Write an error as a whole response."""
    headers = [(b"content-type", b"application/json")]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    return HttpHead(error.status, tuple(headers)), json.dumps(error.to_body()).encode()


def message_of(body: bytes) -> str:
    """Return the message of OpenAI's error body, or nothing that could be a secret."""
    try:
        return str(json.loads(body)["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return "no reason was given"
