"""How each model is: what `vllm-graph status` prints."""

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from deployments.errors import ServingError
from deployments.ingress.services import Model, Models

ANSWERS_WITHIN_S = 5.0
STATUS = "/api/v1/status"


def create_router(models: Models) -> APIRouter:
    router = APIRouter()

    @router.get(STATUS)
    async def get_status() -> Response:
        """Tell the state of every model, and the load of each of its replicas."""
        known = models.models().values()
        return JSONResponse({"models": await asyncio.gather(*(describe(model) for model in known))})

    return router


async def describe(model: Model) -> dict[str, Any]:
    """Write a model's state; replicas that do not answer in time are left out, and the message says so."""
    described = {"name": model.name, "status": model.status, "message": model.message, "replicas": []}
    if model.status != "running":
        return described
    try:
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            return described | {"replicas": [asdict(load) for load in await model.client.loads()]}
    except TimeoutError:
        return described | {"message": f"The replicas did not answer within {ANSWERS_WITHIN_S:g} s."}
    except ServingError as error:
        return described | {"message": error.message}
