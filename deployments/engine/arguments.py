"""The names of vLLM's arguments as the settings may write them."""

from collections.abc import Mapping
from typing import Any

from config.guided import EngineGuidedSettings
from deployments.errors import InvalidRequestError


def underscored(engine_args: Mapping[str, Any]) -> dict[str, Any]:
    """Write every name with underscores; raises InvalidRequestError when one is given in both spellings."""
    named: dict[str, Any] = {}
    for written, value in engine_args.items():
        name = written.replace("-", "_")
        if name in named:
            raise InvalidRequestError(f"engine_args: `{name}` is given twice")
        named[name] = value
    return named


def with_xgrammar(own: dict[str, Any], settings: EngineGuidedSettings) -> dict[str, Any]:
    """Return engine arguments that pin the backend: with `auto` the first constraint decides for all later ones."""
    given = own.get("structured_outputs_config") or {}
    if settings.compiled_by == "engine" or not isinstance(given, dict):
        return own
    return own | {"structured_outputs_config": {"backend": "xgrammar"} | given}
