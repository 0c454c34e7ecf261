"""The gateway's HTTP application: a plain factory, no Ray in it."""

from collections.abc import Mapping
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from config.models import GatewaySettings
from deployments.analysis_types import AnalysisRequest
from deployments.errors import (
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    ServingError,
)
from deployments.ingress import proxy
from deployments.ingress.middleware.errors import error_response
from deployments.ingress.middleware.key_ring import KeyRing
from deployments.ingress.middleware.observing import Recorder
from deployments.ingress.middleware.stack import make_stack
from deployments.ingress.openapi import with_engines
from deployments.ingress.routes import health, instances, keys, openai, status, writing
from deployments.ingress.services import Instances, Models, Upstream
from deployments.openai_paths import FORWARDED
from deployments.usage.counters import Ledger

MANAGED_PATHS = (*instances.PATHS, *keys.PATHS)
MANAGED_PREFIXES = (*instances.PREFIXES, *keys.PREFIXES)
DIRECT_PATHS = (*FORWARDED, *health.PATHS, "/v1/models")
DIRECT_PREFIXES = ("/v1/models/", "/v1/grammars/")
PATHS = (*DIRECT_PATHS, *writing.PATHS, "/openapi.json", status.STATUS, *MANAGED_PATHS)
PREFIXES = (*DIRECT_PREFIXES, *MANAGED_PREFIXES)


def create_api(
    models: Models,
    settings: GatewaySettings,
    tokenizer: Upstream[AnalysisRequest],
    *,
    manager: Instances | None = None,
    ring: KeyRing | None = None,
    ledger: Ledger | None = None,
    recorder: Recorder | None = None,
    server_echoes_request_id: bool = False,
) -> FastAPI:
    """Assemble routes, error bodies and policy.

    `manager`: of instances; None: its routes answer 503. `ring` holds the keys, `ledger` is where their use is counted,
    `recorder` is told how each request ended, and where its time went.
    """
    api = FastAPI(
        title="vllm-graph",
        version=version("vllm-graph"),
        docs_url=None,  # a page of scripts from elsewhere, on the origin where keys are typed
        redoc_url=None,
        redirect_slashes=False,
        middleware=make_stack(settings, ledger or Ledger(), PATHS, PREFIXES, server_echoes_request_id, ring, recorder),
    )
    api.include_router(openai.create_router(models, settings))
    api.include_router(writing.create_router(models, settings, tokenizer))
    api.include_router(health.create_router(models, settings))
    api.include_router(status.create_router(models))
    include_managed(api, models, settings, manager)
    answer_errors(api)
    describe_itself = api.openapi
    api.openapi = lambda: with_engines(describe_itself(), models.models())  # type: ignore[method-assign]
    return api


def include_managed(api: FastAPI, models: Models, settings: GatewaySettings, manager: Instances | None) -> None:
    if manager is None:
        api.include_router(instances.create_absent_router(MANAGED_PATHS, MANAGED_PREFIXES))
        return
    api.include_router(instances.create_router(settings, manager))
    api.include_router(keys.create_router(settings, manager))
    api.include_router(proxy.create_router(models, settings))


def create_direct_api(
    models: Models,
    settings: GatewaySettings,
    *,
    ring: KeyRing,
    ledger: Ledger,
    recorder: Recorder,
    environment: Mapping[str, str],
    server_echoes_request_id: bool = False,
) -> FastAPI:
    """Assemble what an engine's replica answers itself, under the gateway's policy; arguments as of `create_api`."""
    api = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        middleware=make_stack(
            settings, ledger, DIRECT_PATHS, DIRECT_PREFIXES, server_echoes_request_id, ring, recorder, environment
        ),
    )
    api.include_router(openai.create_router(models, settings))
    api.include_router(health.create_router(models, settings))
    answer_errors(api)
    return api


def answer_errors(api: FastAPI) -> None:
    api.add_exception_handler(ServingError, on_serving_error)
    api.add_exception_handler(HTTPException, on_http_exception)
    api.add_exception_handler(RequestValidationError, on_validation_error)


async def on_serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    return error_response(request.scope["path"], error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"]
    kinds: dict[int, ServingError] = {
        404: NotFoundError(f"There is no route `{path}`."),
        405: MethodNotAllowedError(f"`{request.method}` is not allowed on `{path}`."),
    }
    response = error_response(path, kinds.get(error.status_code, InvalidRequestError(str(error.detail))))
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    if error.status_code == 405:  # Starlette names the methods of the first route of this path only
        routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
        response.headers["allow"] = ", ".join(sorted({method for route in routes for method in route.methods}))
    return response


async def on_validation_error(request: Request, error: Exception) -> Response:
    return error_response(request.scope["path"], InvalidRequestError(str(error)))
