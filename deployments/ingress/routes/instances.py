"""Managing model instances: for holders of a management key, which the middleware asks for by the path's prefix."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from config.instances import InstanceOptions
from config.models import MODEL_NAME_PATTERN, GatewaySettings, is_model_name
from deployments.errors import (
    EngineUnavailableError,
    InvalidNameError,
    InvalidOptionsError,
    InvalidParameterError,
    InvalidRequestError,
)
from deployments.ingress.middleware.body import read_body
from deployments.ingress.parsing import parse_object
from deployments.ingress.routes.writing import body_of
from deployments.ingress.services import Instances
from deployments.ingress.validation import shorten
from deployments.instance_types import Instance, ParsedCommand

INSTANCES = "/api/v1/instances"
INSTANCE = INSTANCES + "/{name}"
BACKEND = "/api/v1/backends/vllm"
NODES = "/api/v1/nodes"
PATHS = (INSTANCES, f"{BACKEND}/parse-command", f"{BACKEND}/version", NODES)
PREFIXES = (INSTANCES + "/",)

MAX_COMMAND_BYTES = 64 * 1024
"""Far longer than any command that starts a model."""


def create_router(settings: GatewaySettings, instances: Instances) -> APIRouter:
    router = APIRouter()

    @router.get(INSTANCES)
    async def list_instances() -> Response:
        """List all instances, those declared in the YAML too."""
        return JSONResponse([to_json(instance) for instance in await instances.list()])

    @router.get(INSTANCE)
    async def get_instance(name: str) -> Response:
        """Describe one."""
        return JSONResponse(to_json(await instances.get(checked(name))))

    @router.post(INSTANCE, openapi_extra=body_of(InstanceOptions))
    async def create_instance(request: Request, name: str) -> Response:
        """Define one; it is not started."""
        checked(name)
        created = await instances.create(name, await read_fields(request, settings))
        return JSONResponse(to_json(created), 201)

    @router.put(INSTANCE, openapi_extra=body_of(InstanceOptions))
    async def update_instance(request: Request, name: str) -> Response:
        """Define one anew; if it runs, its successor takes over when it is ready."""
        checked(name)
        return JSONResponse(to_json(await instances.update(name, await read_fields(request, settings))))

    @router.delete(INSTANCE)
    async def delete_instance(name: str) -> Response:
        """Forget one that is stopped."""
        await instances.delete(checked(name))
        return Response(status_code=204)

    @router.get(INSTANCE + "/logs")
    async def get_log(request: Request, name: str) -> Response:
        """Return the last `lines` lines of its log, or all that is kept of it."""
        checked(name)
        lines = lines_of(request.query_params.getlist("lines"), settings.instances.max_log_bytes)
        return PlainTextResponse(await instances.log(name, lines))

    add_verb(router, "start", instances.start, "Have it run; one that runs is left alone")
    add_verb(router, "stop", instances.stop, "End it once its requests have ended")
    add_verb(router, "restart", instances.restart, "End it once its requests have ended, and start it again")
    add_cluster(router, settings, instances)
    return router


def add_verb(router: APIRouter, verb: str, do: Callable[[str], Awaitable[Instance]], summary: str) -> None:
    async def answer(name: str) -> Response:
        return JSONResponse(to_json(await do(checked(name))))

    router.add_api_route(f"{INSTANCE}/{verb}", answer, methods=["POST"], name=f"{verb} instance", summary=summary)


def add_cluster(router: APIRouter, settings: GatewaySettings, instances: Instances) -> None:
    @router.post(f"{BACKEND}/parse-command")
    async def parse_command(request: Request) -> Response:
        """Read a `vllm serve` command as options of an instance; nothing is started or stored."""
        command = command_of(await read_fields(request, settings))
        return JSONResponse(to_options(await instances.parse(command)))

    @router.get(f"{BACKEND}/version")
    async def get_vllm_version() -> Response:
        """Tell the version of vLLM that instances run."""
        return JSONResponse({"version": await instances.vllm_version()})

    @router.get(NODES)
    async def list_nodes() -> Response:
        """Describe the cluster's machines."""
        return JSONResponse(list(await instances.nodes()))


def create_absent_router(paths: tuple[str, ...], prefixes: tuple[str, ...]) -> APIRouter:
    """Make the router of a server without a manager of instances."""
    router = APIRouter()

    async def refuse() -> Response:
        raise EngineUnavailableError("This server runs without a manager of instances and of stored keys.")

    for path in (*paths, *(prefix + "{rest:path}" for prefix in prefixes)):
        router.add_api_route(path, refuse, methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False)
    return router


def checked(name: str) -> str:
    """Return a name from a URL; raises InvalidNameError when no instance can be called so."""
    if not is_model_name(name):
        text = (
            f"`{shorten(name)}` is no name of an instance: it must match {MODEL_NAME_PATTERN}, and not only have dots."
        )
        raise InvalidNameError(text, "name")
    return name


async def read_fields(request: Request, settings: GatewaySettings) -> dict[str, Any]:
    """Read a body; raises InvalidOptionsError when it is no JSON object."""
    raw = await read_body(request.scope, request.receive, settings.limits.max_body_bytes, settings.deadlines.body_s)
    try:
        return parse_object(raw, settings.limits)
    except InvalidRequestError as error:
        raise InvalidOptionsError(error.message, error.param) from error


def lines_of(given: list[str], most: int) -> int | None:
    """Read the query's `lines`; None: all. Raises InvalidParameterError."""
    if not given:
        return None
    text = given[0]
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if len(given) > 1 or not is_number or not 1 <= int(text) <= most:
        raise InvalidParameterError(f"`lines` must be one integer of 1 to {most}, not `{shorten(text)}`.", "lines")
    return int(text)


def command_of(fields: dict[str, Any]) -> str:
    if unknown := sorted(fields.keys() - {"command"}):
        raise InvalidOptionsError(f"`{shorten(unknown[0])}` is not a field here; `command` is.", unknown[0][:64])
    command = fields.get("command")
    if not isinstance(command, str):
        raise InvalidOptionsError("`command` must be a text: a `vllm serve` command.", "command")
    if len(command.encode()) > MAX_COMMAND_BYTES:
        raise InvalidOptionsError(f"`command` may have {MAX_COMMAND_BYTES} bytes.", "command")
    return command


def to_json(instance: Instance) -> dict[str, Any]:
    """Write an instance as its owner reads it."""
    written: dict[str, Any] = {
        "id": instance.id,
        "name": instance.name,
        "status": instance.status,
        "ready": instance.ready,
        "created": instance.created,
        "options": dict(instance.options),
        "command": instance.command,
    }
    if instance.message:
        written["message"] = instance.message
    if instance.is_declared:
        written["declared"] = True
    return written


def to_options(parsed: ParsedCommand) -> dict[str, Any]:
    """Write a command that was read so that it can be sent to create an instance, when it leaves nothing over."""
    written: dict[str, Any] = {"backend_type": "vllm", "backend_options": dict(parsed.backend_options)}
    if parsed.environment:
        written["environment"] = dict(parsed.environment)
    if parsed.ignored:
        written["ignored"] = list(parsed.ignored)
    if parsed.extra_args:
        written["extra_args"] = list(parsed.extra_args)
    return written
