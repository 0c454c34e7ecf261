"""The names of vLLM's arguments as the settings may write them."""

from collections.abc import Mapping
from typing import Any

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
