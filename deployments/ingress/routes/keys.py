"""API keys that are made and revoked over the API: for holders of a management key."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from config.auth import KeyOptions
from config.models import GatewaySettings
from deployments.ingress.routes.instances import read_fields
from deployments.ingress.routes.writing import body_of
from deployments.ingress.services import Instances
from deployments.instance_types import StoredKey

KEYS = "/api/v1/auth/keys"
PATHS = (KEYS,)
PREFIXES = (KEYS + "/",)


def create_router(settings: GatewaySettings, instances: Instances) -> APIRouter:
    router = APIRouter()

    @router.get(KEYS)
    async def list_keys() -> Response:
        """List the stored keys, without the keys themselves."""
        return JSONResponse([to_json(stored) for stored in await instances.keys()])

    @router.post(KEYS, openapi_extra=body_of(KeyOptions))
    async def create_key(request: Request) -> Response:
        """Make a key. `key` of the answer is the key itself: it is told this once, and kept nowhere."""
        stored, key = await instances.create_key(await read_fields(request, settings))
        return JSONResponse({**to_json(stored), "key": key}, 201)

    @router.delete(KEYS + "/{key_id}")
    async def revoke_key(key_id: str) -> Response:
        """Have a key open nothing any more."""
        await instances.revoke_key(key_id)
        return Response(status_code=204)

    return router


def to_json(stored: StoredKey) -> dict[str, Any]:
    return {
        "id": stored.id,
        "name": stored.name,
        "kind": stored.kind,
        "created": stored.created,
        "expires": stored.expires,
        "instances": None if stored.instances is None else list(stored.instances),
    }
