"""What a request says about its constraint, beside the constraint itself."""

from collections.abc import Iterable, Mapping
from typing import Any

from deployments.errors import InvalidRequestError
from deployments.types import GuidedOptions

LEGACY: Mapping[str, str] = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}
"""vLLM's earlier names. It passes over them without a word: answers would have no constraint at all."""
OUTPUTS = "structured_outputs"
RECEIPT = b"x-guided-receipt"


def translated(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body with `guided_*` in vLLM's own words, and without the `strict` that only we know.

    It is the same object when nothing was to be done. Raises InvalidRequestError when there are two constraints.
    """
    given = [name for name in LEGACY if body.get(name) is not None]
    outputs = body.get(OUTPUTS)
    if given:
        if len(given) > 1 or outputs is not None or body.get("response_format") is not None:
            raise InvalidRequestError(f"`{given[0]}` and another constraint cannot both hold.", given[0])
        outputs = {LEGACY[given[0]]: body[given[0]]}
    elif not isinstance(outputs, dict) or "strict" not in outputs:
        return body
    kept = {name: value for name, value in body.items() if name not in LEGACY}
    return kept | {OUTPUTS: {name: value for name, value in outputs.items() if name != "strict"}}


def options_of(body: Mapping[str, Any], headers: Iterable[tuple[bytes, bytes]]) -> GuidedOptions:
    """Read how a request wants its constraint treated, from its body as the client wrote it; by default strictly.

    Raises InvalidRequestError when `strict` is neither true nor false.
    """
    strict = stated_strict(body)
    if not isinstance(strict, bool | None):
        raise InvalidRequestError("`strict` must be true or false.", "strict")
    return GuidedOptions(strict=strict is not False, receipt=(RECEIPT, b"1") in headers)


def stated_strict(body: Mapping[str, Any]) -> Any:
    """Return `strict` of whatever constrains the answer; OpenAI has three places for it, and vLLM's field has ours."""
    places = (("response_format", "json_schema"), ("text", "format"), ("output_config", "format"), (OUTPUTS,))
    for place in places:
        value: Any = body
        for name in (*place, "strict"):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None
