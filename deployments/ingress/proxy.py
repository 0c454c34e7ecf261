"""One instance's engine, addressed by the path: nothing is started for it, and `model` of the body chooses nothing."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from config.models import GatewaySettings
from deployments.errors import InstanceNotFoundError, InstanceNotRunningError, MethodNotAllowedError, NotFoundError
from deployments.ingress.middleware.errors import error_response
from deployments.ingress.middleware.headers import engine_headers
from deployments.ingress.on_demand import Catalog, Check, InstanceModel, answering, engine_of
from deployments.ingress.relay import Relay
from deployments.ingress.routes.instances import INSTANCE, checked
from deployments.ingress.routes.openai import has_grammars, read_call
from deployments.ingress.services import Model, Models, Upstream
from deployments.ingress.validation import shorten
from deployments.openai_paths import FORWARDED, GRAMMARS
from deployments.types import HttpRequest

READABLE = ("/health", "/v1/models", "/version")
"""What of an engine may be read. As FORWARDED an allow-list: control and development routes are on neither."""


def create_router(models: Models, settings: GatewaySettings) -> APIRouter:
    router = APIRouter()

    def upstream(model: Model, check: Check | None = None) -> Upstream[HttpRequest]:
        if not isinstance(model, InstanceModel) and not model.is_callable:
            text = f"The model `{model.name}` does not run."
            raise InstanceNotRunningError(text, "model", settings.retry_after_s)
        return answering(model, engine_of, settings.retry_after_s, check, may_start=False)

    async def proxy(request: Request, name: str, path: str) -> Response:
        """Forward to that instance's engine; one that does not run is not started."""
        model = models.models().get(checked(name))
        if model is None and isinstance(models, Catalog):
            await models.renew()
            model = models.models().get(name)
        if model is None:
            raise InstanceNotFoundError(f"There is no instance `{name}`.", "name")
        path = f"/{path}"
        if request.method not in (allowed := methods(path)):
            if not allowed:
                raise NotFoundError(f"Instances have no route `{shorten(path)}`.")
            refusal = MethodNotAllowedError(f"`{request.method}` is not allowed on `{path}` of an instance.")
            return error_response(request.scope["path"], refusal, {"allow": ", ".join(allowed)})
        if request.method == "GET":
            check = has_grammars if path.startswith(GRAMMARS) else None
            headers, query = engine_headers(request.scope["headers"]), request.scope["query_string"]
            asked = HttpRequest("GET", path, query, headers, b"")
            return Relay(upstream(model, check), asked, settings.deadlines, is_stream=False, model=model.name)
        call = await read_call(request, path, settings)
        return Relay(upstream(model, call.check), call.http, settings.deadlines, call.is_stream, model.name)

    for method in ("GET", "POST"):
        router.add_api_route(INSTANCE + "/proxy/{path:path}", proxy, methods=[method], name=f"{method} of an instance")
    return router


def methods(path: str) -> tuple[str, ...]:
    """Return what may be done to an engine's route, nothing when it is not on the lists."""
    if path in FORWARDED:
        return ("POST",)
    grammar = path.removeprefix(GRAMMARS + "/")
    is_grammar = grammar not in ("", path) and "/" not in grammar
    return ("GET",) if path in READABLE or is_grammar else ()
