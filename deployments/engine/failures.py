"""What a client is told when the engine's application answers 500."""

import json

from deployments.errors import InternalError, InvalidRequestError, ServingError


def restated(body: bytes, has_reached_engine: bool) -> ServingError:
    """Turn an answer of 500 into ours.

    When no engine request was made, vLLM failed to read the body, in a way that it did not foresee, and would again:
    that is a 400 with its words. Anything else is a 500 that says nothing.
    """
    if has_reached_engine:
        return InternalError()
    return InvalidRequestError(f"The engine could not make sense of this request: {message_of(body)}")


def message_of(body: bytes) -> str:
    """Return the message of OpenAI's error body, or nothing that could be a secret."""
    try:
        return str(json.loads(body)["error"]["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return "no reason was given"
