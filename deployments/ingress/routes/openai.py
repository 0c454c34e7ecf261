"""vLLM's own surface, forwarded to the engine of the model that the body names."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, Response

from config.auth import Key
from config.limits import RequestLimits
from config.models import GatewaySettings
from deployments.errors import ModelNotFoundError
from deployments.ingress.budget import POLICY, budget_of
from deployments.ingress.choice import find
from deployments.ingress.guided import options_of, translated
from deployments.ingress.middleware.body import read_body
from deployments.ingress.middleware.headers import engine_headers
from deployments.ingress.on_demand import InstanceModel, answering, engine_of
from deployments.ingress.parsing import parse_object, to_json
from deployments.ingress.relay import Relay
from deployments.ingress.routing import requested_model, require_allowed, require_path, visible
from deployments.ingress.services import Model, Models
from deployments.ingress.validation import validate
from deployments.openai_paths import FORWARDED, GRAMMARS
from deployments.types import HttpRequest


@dataclass(frozen=True)
class Call:
    """A request to a model, read."""

    http: HttpRequest
    body: dict[str, Any] = field(repr=False)
    limits: RequestLimits = field(repr=False)

    @property
    def is_stream(self) -> bool:
        return self.body.get("stream") is True

    def check(self, model: Model) -> None:
        """Raise what is wrong with it for a model, as far as is known of the model: ServingError."""
        require_path(model, self.http.path)
        validate(self.http.path, self.body, model.info, self.limits)


async def read_call(request: Request, path: str, settings: GatewaySettings) -> Call:
    """Read a POST for the engine's route `path`; raises ServingError when it is none, whatever the model."""
    scope, limits = request.scope, settings.limits
    budget_of(scope).mark(POLICY)
    raw = await read_body(scope, request.receive, limits.max_body_bytes, settings.deadlines.body_s)
    given = parse_object(raw, limits)
    body = translated(given)
    if body is not given:
        raw = to_json(body)
    headers, guided = engine_headers(scope["headers"]), options_of(given, scope["headers"])
    return Call(HttpRequest("POST", path, scope["query_string"], headers, raw, guided), body, limits)


class Forwarding(APIRoute):
    """A route whose endpoint has the request itself: FastAPI looks for no parameters."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return self.endpoint


def create_router(models: Models, settings: GatewaySettings) -> APIRouter:
    router = APIRouter()

    async def forward(request: Request) -> Response:
        call = await read_call(request, request.scope["path"], settings)
        model = await find(models, key_of(request), requested_model(call.body), settings.default_model)
        upstream = answering(model, engine_of, settings.retry_after_s, call.check)
        return Relay(upstream, call.http, settings.deadlines, call.is_stream, model.name)

    for path in FORWARDED:
        router.add_api_route(
            path,
            forward,
            methods=["POST"],
            name=path,
            summary="Forwarded to the model's engine",
            route_class_override=Forwarding,
        )

    @router.get(GRAMMARS + "/{name}")
    async def find_grammar(request: Request, name: str, model: str | None = None) -> Response:
        """Say what is known of a constraint that was compiled."""
        chosen = await find(models, key_of(request), model, settings.default_model)
        asked = HttpRequest("GET", f"{GRAMMARS}/{name}", b"", engine_headers(request.scope["headers"]), b"")
        # One that is stopped knows of no constraint: it is not started for this.
        upstream = answering(chosen, engine_of, settings.retry_after_s, has_grammars, may_start=False)
        return Relay(upstream, asked, settings.deadlines, is_stream=False, model=chosen.name)

    @router.get("/v1/models")
    async def list_models(request: Request) -> Response:
        """List every model that the key opens, ready or not."""
        known = models.models()
        cards = [to_card(known[name]) for name in visible(key_of(request), known)]
        return JSONResponse({"object": "list", "data": cards})

    @router.get("/v1/models/{name:path}")
    async def get_model(request: Request, name: str) -> Response:
        """Describe one model."""
        if not name:
            return await list_models(request)
        require_allowed(key_of(request), name)
        model = await find(models, key_of(request), name, None)
        if model.name != name:
            raise ModelNotFoundError(f"The model `{name}` does not exist.", "model")
        return JSONResponse(to_card(model))

    return router


def has_grammars(model: Model) -> None:
    require_path(model, GRAMMARS)


def key_of(request: Request) -> Key | None:
    key: Key | None = request.scope["state"].get("key")
    return key


def to_card(model: Model) -> dict[str, object]:
    """Write a model as OpenAI's model object, with its window (tokens) and its status."""
    created = model.info.created if model.info else 0
    return {
        "id": model.name,
        "object": "model",
        "created": model.instance.created if isinstance(model, InstanceModel) else created,
        "owned_by": "vllm-graph",
        "max_model_len": model.info.max_model_len if model.info else None,
        "status": model.status,
    }
