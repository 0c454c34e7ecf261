"""Which model a request is for: read from its body, decided from the models there are."""

from collections.abc import Iterable, Mapping
from typing import Any

from config.auth import Key
from deployments.errors import (
    AccessDeniedError,
    EngineUnavailableError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
)
from deployments.ingress.services import Model


def requested_model(body: Mapping[str, Any]) -> str | None:
    """Return `model` of a body; raises InvalidRequestError when it is not a string."""
    model = body.get("model")
    if model is None or isinstance(model, str):
        return model
    raise InvalidRequestError("`model` must be a string", "model")


def choose_model(models: Mapping[str, Model], requested: str | None, default: str | None) -> Model:
    """Pick the model by its name or `name/anything`; without a name, the default or the only one.

    Raises InvalidRequestError when a name is required, ModelNotFoundError when nobody has it.
    """
    if requested:
        name = requested if requested in models else requested.partition("/")[0]
    elif len(models) == 1:
        name = next(iter(models))
    elif default is not None:
        name = default
    else:
        raise InvalidRequestError("Model name is required", "model")
    if name not in models:
        there_are = ", ".join(sorted(models)) or "none yet"
        raise ModelNotFoundError(
            f"The model `{(requested or name)[:128]}` does not exist. Models: {there_are}.", "model"
        )
    return models[name]


def require_allowed(key: Key | None, model_name: str) -> None:
    """Raise AccessDeniedError when the key is held to other models.

    `model_name` is what `choose_model` found, for a request may write it as `name/anything` or not at all.
    """
    if key is not None and key.instances is not None and model_name not in key.instances:
        raise AccessDeniedError(f"This API key does not open the model `{model_name[:128]}`.", "model")


def visible(key: Key | None, names: Iterable[str]) -> list[str]:
    """Return the models that a key opens, in the order given."""
    return [name for name in names if key is None or key.instances is None or name in key.instances]


def require_path(model: Model, path: str) -> None:
    """Raise NotFoundError when the model is known to lack a route."""
    if model.info is not None and path not in model.info.paths:
        raise NotFoundError(f"The model `{model.name}` has no route `{path}`.", "model")


def require_callable(model: Model, retry_after_s: int) -> None:
    """Raise EngineUnavailableError when the model has no replica to answer and none is expected to start by itself."""
    if model.is_callable:
        return
    why = {"starting": "is loading", "stopping": "is shutting down"}.get(model.status, "failed to start")
    detail = f": {model.message}" if model.status == "failed" and model.message else ""
    raise EngineUnavailableError(f"The model `{model.name}` {why}{detail}. Retry later.", "model", retry_after_s)
