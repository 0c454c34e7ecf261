"""vLLM's own surface, forwarded to the engine of the model that the body names."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from config.models import GatewaySettings
from deployments.errors import ModelNotFoundError
from deployments.ingress.guided import options_of, translated
from deployments.ingress.middleware.body import read_body
from deployments.ingress.middleware.headers import engine_headers
from deployments.ingress.parsing import parse_object, to_json
from deployments.ingress.relay import Relay
from deployments.ingress.routing import choose_model, requested_model, require_callable, require_path
from deployments.ingress.services import Model, Models
from deployments.ingress.validation import validate
from deployments.types import HttpRequest

GRAMMARS = "/v1/grammars"
FORWARDED = (
    "/v1/chat/completions",
    "/v1/chat/completions/render",
    "/v1/completions",
    "/v1/completions/render",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/score",
    "/pooling",
    "/classify",
    "/score",
    "/rerank",
    "/tokenize",
    "/detokenize",
    GRAMMARS,
)
"""An allow-list: vLLM's control and development routes are not on it and never will be."""


def create_router(models: Models, settings: GatewaySettings) -> APIRouter:
    router = APIRouter()
    limits = settings.limits

    async def forward(request: Request) -> Response:
        raw = await read_body(request.scope, request.receive, limits.max_body_bytes, settings.deadlines.body_s)
        given = parse_object(raw, limits)
        body = translated(given)
        if body is not given:
            raw = to_json(body)
        model = choose_model(models.models(), requested_model(body), settings.default_model)
        path, query = request.scope["path"], request.scope["query_string"]
        require_callable(model, settings.retry_after_s)
        require_path(model, path)
        validate(path, body, model.info, limits)
        headers = engine_headers(request.scope["headers"])
        guided = options_of(given, request.scope["headers"])
        forwarded = HttpRequest("POST", path, query, headers, raw, guided)
        return Relay(model.client, forwarded, settings.deadlines, body.get("stream") is True)

    for path in FORWARDED:
        router.add_api_route(path, forward, methods=["POST"], name=path, summary="Forwarded to the model's engine")

    @router.get(GRAMMARS + "/{name}")
    async def find_grammar(request: Request, name: str, model: str | None = None) -> Response:
        """Say what is known of a constraint that was compiled."""
        chosen = choose_model(models.models(), model, settings.default_model)
        require_callable(chosen, settings.retry_after_s)
        require_path(chosen, GRAMMARS)
        forwarded = HttpRequest("GET", f"{GRAMMARS}/{name}", b"", engine_headers(request.scope["headers"]), b"")
        return Relay(chosen.client, forwarded, settings.deadlines, is_stream=False)

    @router.get("/v1/models")
    async def list_models() -> Response:
        """List every model, ready or not."""
        return JSONResponse({"object": "list", "data": [to_card(model) for model in models.models().values()]})

    @router.get("/v1/models/{name:path}")
    async def get_model(name: str) -> Response:
        """Describe one model."""
        if not name:
            return await list_models()
        if name not in models.models():
            raise ModelNotFoundError(f"The model `{name}` does not exist.", "model")
        return JSONResponse(to_card(models.models()[name]))

    return router


def to_card(model: Model) -> dict[str, object]:
    """Write a model as OpenAI's model object, with its window (tokens) and its status."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.info.created if model.info else 0,
        "owned_by": "vllm-graph",
        "max_model_len": model.info.max_model_len if model.info else None,
        "status": model.status,
    }
