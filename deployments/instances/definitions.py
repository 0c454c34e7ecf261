"""Definitions of instances as they come from outside, checked."""

from collections.abc import Mapping
from typing import Any

from config.instances import InstanceOptions, first_problem
from deployments.errors import InvalidOptionsError
from deployments.instance_types import Instance
from deployments.instances.services import App, Apps, Commands


async def checked_options(
    name: str, options: Mapping[str, Any], apps: Apps, commands: Commands
) -> tuple[InstanceOptions, str]:
    """Return options and the command that says them; raises InvalidOptionsError naming the field that is wrong."""
    checked = parsed_options(options)
    await apps.check(name, checked)
    if checked.backend_type != "vllm":
        return checked, ""
    return checked, await commands.command_of(checked.backend_options)


def parsed_options(options: Mapping[str, Any]) -> InstanceOptions:
    try:
        return InstanceOptions.model_validate(dict(options))
    except ValueError as error:
        raise InvalidOptionsError(describe(error)) from error


def describe(error: ValueError) -> str:
    """Say which field is wrong, without what it holds: it may be a secret."""
    field, why = first_problem(error)
    return f"`{field}`: {why}" if field else why


def declared_instance(name: str, args: Mapping[str, Any], app: App) -> Instance:
    """Write a model of the YAML as an instance that the API does not change."""
    is_ready = app.state in ("running", "idle")
    return Instance(
        id=f"declared-{name}",
        name=name,
        status="failed" if app.state == "failed" else "shutting_down" if app.state == "deleting" else "running",
        ready=is_ready,
        created=0,
        options={"backend_type": args.get("backend", "vllm"), "backend_options": args.get("engine_args", {})},
        command="",
        on_demand_start=False,
        message=app.message if app.state == "failed" else "",
        is_declared=True,
    )
