"""Is anybody there: for load balancers and people. Never creates an engine request."""

import asyncio
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from config.models import GatewaySettings
from deployments.errors import EngineUnavailableError, ModelNotFoundError, ServingError
from deployments.ingress.services import Model, Models


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
    async def deep_health(model: str | None = None) -> Response:
        """Have every running model, or the one named, generate a token; 503 unless all do."""
        known = models.models()
        if model is not None and model not in known:
            raise ModelNotFoundError(f"The model `{model[:128]}` does not exist.", "model")
        asked = [known[model]] if model is not None else list(known.values())
        reports = await asyncio.gather(*(probe(one, settings.deadlines.first_byte_s) for one in asked))
        is_well = bool(reports) and all(report.get("ok", True) for report in reports)
        answer = {"models": {one.name: report for one, report in zip(asked, reports, strict=True)}}
        return JSONResponse(answer, 200 if is_well else 503, None if is_well else retry_later)

    @router.get("/version")
    async def get_version() -> Response:
        """Tell the versions of this server and of the engines that answered."""
        engines = {model.name: model.info.version for model in models.models().values() if model.info}
        return JSONResponse({"version": version("vllm-graph"), "engines": engines})

    return router


async def probe(model: Model, timeout_s: float) -> dict[str, object]:
    """Say how a model is; one that is scaled to zero is left asleep."""
    if model.status == "idle":
        return {"status": "idle"}
    if not model.is_callable:
        return {"status": model.status, "ok": False}
    try:
        async with asyncio.timeout(timeout_s):
            return {"status": model.status, "ok": True, "probe_s": round(await model.client.probe(), 4)}
    except TimeoutError:
        return {"status": model.status, "ok": False, "message": f"No replica answered within {timeout_s:g} s."}
    except ServingError as error:
        return {"status": model.status, "ok": False, "message": error.message}
