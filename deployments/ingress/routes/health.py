"""Is anybody there: for load balancers and people. Never creates an engine request."""

from importlib.metadata import version

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from config.models import GatewaySettings
from deployments.errors import EngineUnavailableError
from deployments.ingress.services import Models


def create_router(models: Models, settings: GatewaySettings) -> APIRouter:
    router = APIRouter()

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    async def health() -> Response:
        """Answer 200 with an empty body while any model can be called, else 503."""
        if any(model.is_callable for model in models.models().values()):
            return Response(status_code=200)
        states = ", ".join(f"{model.name}: {model.status}" for model in models.models().values()) or "no model deployed"
        raise EngineUnavailableError(f"No engine is ready ({states}).", None, settings.retry_after_s)

    @router.get("/version")
    async def get_version() -> Response:
        """Tell the versions of this server and of the engines that answered."""
        engines = {model.name: model.info.version for model in models.models().values() if model.info}
        return JSONResponse({"version": version("vllm-graph"), "engines": engines})

    return router
