"""What all settings share: frozen, unknown keys refused, `${VAR}` expanded from the environment."""

import os
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


class Settings(BaseModel):
    """Base of every settings model."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class ApplicationSettings(Settings):
    """Base of what stands under `args:`. Variables are expanded here, once, not again in the models inside it."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return expand_variables(value)


def expand_variables(value: Any) -> Any:
    """Replace `${VAR}` and `${VAR:-default}` in every string of a nested value.

    Raises ValueError naming the variable when it is not set and has no default.
    """
    if isinstance(value, str):
        return _VARIABLE.sub(_variable_value, value)
    if isinstance(value, dict):
        return {key: expand_variables(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_variables(item) for item in value]
    return value


def _variable_value(match: re.Match[str]) -> str:
    name, default = match["name"], match["default"]
    if name in os.environ:
        return os.environ[name]
    if default is None:
        raise ValueError(f"environment variable {name} is not set; set it or write ${{{name}:-default}}")
    return default
