"""What is deployed for an instance: its model's settings, and Serve's options of its Engine."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from config.instances import InstanceOptions, InstanceSettings
from config.models import ModelSettings
from config.settings import expand_variables
from deployments.errors import InvalidOptionsError

ENGINE_ARGUMENTS = {"vllm": "engine_args", "fake": "fake"}
"""Where in ModelSettings the `backend_options` of a backend go."""
OWN = frozenset({"name", "backend", "environment", *ENGINE_ARGUMENTS.values()})
"""Arguments of ModelSettings that have an option of their own, and are refused under `settings`."""

ENGINE_OPTIONS: Mapping[str, Any] = {
    "max_ongoing_requests": 256,
    "max_queued_requests": 512,
    "max_surge_percent": 100,  # what runs serves until its successor is ready
    "graceful_shutdown_wait_loop_s": 1,
    "health_check_period_s": 2,
    "health_check_timeout_s": 60,
    "max_constructor_retry_count": 1,  # restarting is the manager's, with its delays and its limit
}
"""Serve's options of an instance's Engine when `deployment` of the settings does not say otherwise."""


def to_model_settings(name: str, options: InstanceOptions, settings: InstanceSettings) -> ModelSettings:
    """Return what `build_model` gets: the settings' `defaults`, then the instance's own options.

    Arguments of the engine and environment variables are merged by name, everything else is replaced. Raises
    InvalidOptionsError, which names the option as its owner wrote it.
    """
    _refuse_variables(options)
    if both := sorted(OWN & options.settings.keys()):
        raise InvalidOptionsError(f"settings: `{both[0]}` does not belong there; {_place_of(both[0])}", "settings")
    defaults = settings.defaults
    arguments = ENGINE_ARGUMENTS[options.backend_type]
    own = {"name": name, "backend": options.backend_type}
    merged = {
        arguments: _underscored(defaults.get(arguments, {})) | _underscored(options.backend_options),
        "environment": {**defaults.get("environment", {}), **options.environment},
    }
    try:
        return ModelSettings.model_validate({**defaults, **options.settings, **own, **merged})
    except ValueError as error:
        raise InvalidOptionsError(_readable(error, arguments)) from error


def to_engine_options(options: InstanceOptions, settings: InstanceSettings) -> dict[str, Any]:
    """Return Serve's options of an instance's Engine, as under `deployments:`; one replica unless they say otherwise.

    They win over what `build_model` asks for. Serve checks them.
    """
    given = {"graceful_shutdown_timeout_s": settings.drain_timeout_s, **ENGINE_OPTIONS, **settings.deployment}
    given.pop("name", None)
    autoscaling = {**(given.get("autoscaling_config") or {}), **options.autoscaling}
    if not autoscaling:
        return {"num_replicas": 1, **given}
    if options.autoscaling:
        given.pop("num_replicas", None)
    return given | {"autoscaling_config": autoscaling}


def to_version(settings: ModelSettings) -> str:
    """Return a digest of the settings: replicas with the same one are the same, however often they are deployed."""
    # A set has another order in each process.
    text = json.dumps(settings.model_dump(), sort_keys=True, default=sorted)
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse_variables(options: InstanceOptions) -> None:
    # Whoever writes these is not who runs this process, and must not read its environment.
    for name in ("backend_options", "environment", "settings"):
        given = getattr(options, name)
        try:
            is_plain = expand_variables(given) == given
        except ValueError:
            is_plain = False
        if not is_plain:
            text = f"{name}: `${{NAME}}` stands for a variable only in the server's own configuration; write its value"
            raise InvalidOptionsError(text, name)


def _place_of(argument: str) -> str:
    if argument == "environment":
        return "write it as `environment`"
    if argument == "name":
        return "an instance is named by its path"
    return "write it as `backend_type`" if argument == "backend" else "write it as `backend_options`"


def _underscored(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Write names with underscores, so that an option replaces its default; one that is given twice stays so."""
    named = {name.replace("-", "_"): value for name, value in arguments.items()}
    return named if len(named) == len(arguments) else dict(arguments)


def _readable(error: Any, arguments: str) -> str:
    """Return the first error that pydantic has found, with its place in an instance's options."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = [str(part) for part in first["loc"]]
    if not place:
        return str(first["msg"])
    if place[0] == arguments:
        place[0] = "backend_options"
    elif place[0] not in ("name", "environment"):
        place.insert(0, "settings")
    return f"{'.'.join(place)}: {first['msg']}"
