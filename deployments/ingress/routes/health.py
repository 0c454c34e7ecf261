"""Is anybody there: for load balancers and people. Never creates an engine request."""

import asyncio
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from config.models import GatewaySettings
from deployments.errors import EngineUnavailableError, ModelNotFoundError, ServingError
from deployments.ingress.routes.openai import key_of
from deployments.ingress.routing import require_allowed, visible
from deployments.ingress.services import Model, Models

PATHS = ("/health", "/health/deep", "/version", "/api/v1/version")


def create_router(models: Models, settings: GatewaySettings) -> APIRouter:
    router = APIRouter()
    retry_later = {"retry-after": str(settings.retry_after_s)}

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    async def health(model: Annotated[list[str], Query()] = []) -> Response:  # noqa: B006  (FastAPI copies it)
        """Answer 200 with an empty body while any model can be called, or all that are named; else 503."""
        known = models.models()
        if unknown := [name for name in model if name not in known]:
            raise ModelNotFoundError(f"The model `{unknown[0][:128]}` does not exist.", "model")
        asked = [known[name] for name in model] or list(known.values())
        if (all if model else any)(one.is_callable for one in asked):
            return Response(status_code=200)
        raise EngineUnavailableError("No engine is ready.", None, settings.retry_after_s)

    @router.get("/health/deep")
    async def deep_health(request: Request, model: str | None = None) -> Response:
        """Have every running model that the key opens, or the one named, generate a token; 503 unless all do."""
        known, key = models.models(), key_of(request)
        if model is not None and model not in known:
            raise ModelNotFoundError(f"The model `{model[:128]}` does not exist.", "model")
        if model is not None:
            require_allowed(key, model)
        asked = [known[name] for name in ([model] if model is not None else visible(key, known))]
        reports = await asyncio.gather(*(probe(one, settings.deadlines.first_byte_s) for one in asked))
        is_well = bool(reports) and all(report.get("ok", True) for report in reports)
        answer = {"models": {one.name: report for one, report in zip(asked, reports, strict=True)}}
        return JSONResponse(answer, 200 if is_well else 503, None if is_well else retry_later)

    @router.get("/version")
    async def get_version(request: Request) -> Response:
        """Tell the versions of this server and of the engines that answered."""
        known = models.models()
        mine = [known[name] for name in visible(key_of(request), known)]
        engines = {model.name: model.info.version for model in mine if model.info}
        return JSONResponse({"version": version("vllm-graph"), "engines": engines})

    @router.get("/api/v1/version")
    async def get_own_version() -> Response:
        """Tell this server's version."""
        return JSONResponse({"version": version("vllm-graph")})

    return router


async def probe(model: Model, timeout_s: float) -> dict[str, object]:
    """Say how a model is; one that is scaled to zero, or stopped until somebody wants it, is left asleep."""
    if model.status in ("idle", "stopped"):
        return {"status": model.status}
    if not model.is_callable:
        return {"status": model.status, "ok": False}
    try:
        async with asyncio.timeout(timeout_s):
            return {"status": model.status, "ok": True, "probe_s": round(await model.client.probe(), 4)}
    except TimeoutError:
        return {"status": model.status, "ok": False, "message": f"No replica answered within {timeout_s:g} s."}
    except ServingError as error:
        return {"status": model.status, "ok": False, "message": error.message}
