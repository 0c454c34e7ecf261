"""The gateway's HTTP application: a plain factory, no Ray in it."""

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.models import GatewaySettings
from deployments.errors import (
    InternalError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    ServingError,
)
from deployments.ingress.middleware.request_id import RequestId
from deployments.ingress.relay import error_response
from deployments.ingress.routes import health, openai
from deployments.ingress.services import Models

logger = logging.getLogger("ray.serve")


def create_api(models: Models, settings: GatewaySettings, *, server_echoes_request_id: bool = False) -> FastAPI:
    """Assemble routes, error bodies and middleware (the last one added is the outermost)."""
    api = FastAPI(title="vllm-graph", docs_url="/docs", redoc_url=None)
    api.include_router(openai.create_router(models, settings))
    api.include_router(health.create_router(models, settings))
    api.add_exception_handler(ServingError, on_serving_error)
    api.add_exception_handler(HTTPException, on_http_exception)
    api.add_exception_handler(RequestValidationError, on_validation_error)
    api.add_middleware(LastResort)
    api.add_middleware(RequestId, server_echoes=server_echoes_request_id)
    return api


async def on_serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    return error_response(request.url.path, error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    kinds: dict[int, ServingError] = {
        404: NotFoundError(f"There is no route `{path}`."),
        405: MethodNotAllowedError(f"`{request.method}` is not allowed on `{path}`."),
    }
    response = error_response(path, kinds.get(error.status_code, InvalidRequestError(str(error.detail))))
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def on_validation_error(request: Request, error: Exception) -> Response:
    return error_response(request.url.path, InvalidRequestError(str(error)))


class LastResort:
    """Answer what nobody foresaw with a fixed text, and log it whole under the request id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched_send(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except Exception:
            logger.exception("request %s failed", scope.get("state", {}).get("request_id"))
            if begun:
                raise
            await error_response(scope["path"], InternalError())(scope, receive, send)
