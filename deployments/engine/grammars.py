"""`/v1/grammars`: constraints that are checked and compiled ahead of use. In front of the engine's own application."""

import json
import re
from collections.abc import Mapping
from typing import Any, get_args

from deployments.engine.asgi import AsgiApp, Message
from deployments.engine.failures import refusal
from deployments.engine.guide import Guide
from deployments.engine.receipts import to_json
from deployments.errors import InvalidRequestError, MethodNotAllowedError, NotFoundError, ServingError
from deployments.guided_types import GrammarSpec, Kind
from deployments.types import HttpHead

PATH = "/v1/grammars"
ID = re.compile(r"([a-z_]+)-([0-9a-f]{64})")
OPENAPI = {
    "post": {
        "summary": "Check and compile a constraint ahead of use",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["kind", "spec"],
                        "properties": {
                            "model": {"type": "string"},
                            "kind": {"enum": list(get_args(Kind))},
                            "spec": {"type": ["object", "array", "string"]},
                            "strict": {"type": "boolean"},
                        },
                    }
                }
            },
        },
        "responses": {"200": {"description": "It can be used"}, "400": {"description": "It cannot, and why"}},
    }
}


def with_route(openapi: str) -> str:
    """Add the route to an OpenAPI document, JSON."""
    document = json.loads(openapi)
    document["paths"][PATH] = OPENAPI
    return json.dumps(document)


class Grammars:
    """An ASGI application that answers `/v1/grammars` and hands everything else on."""

    def __init__(self, app: AsgiApp, guide: Guide) -> None:
        self._app = app
        self._guide = guide

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path != PATH and not path.startswith(PATH + "/"):
            await self._app(scope, receive, send)
            return
        try:
            head, body = answer(await self._answer(scope["method"], path[len(PATH) + 1 :], receive))
        except ServingError as error:
            head, body = refusal(error)
        await send({"type": "http.response.start", "status": head.status, "headers": list(head.headers)})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, method: str, name: str, receive: Any) -> Mapping[str, Any]:
        if method == "POST" and not name:
            return await self.compile(await read_object(receive))
        if method == "GET" and name:
            return await self.find(name)
        raise MethodNotAllowedError(f"`{method}` is not allowed here.")

    async def compile(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        pending = self._guide.expect(read_spec(body.get("kind"), body.get("spec"), body.get("strict", True)))
        try:
            return to_json(await pending.ready())
        finally:
            pending.leave()

    async def find(self, name: str) -> Mapping[str, Any]:
        parts = ID.fullmatch(name)
        receipt = await self._guide.find(parts[2], parts[1]) if parts else None
        if receipt is None:
            raise NotFoundError(f"Nothing is known of the grammar `{name[:128]}`; it may have been forgotten.")
        return to_json(receipt)


async def read_object(receive: Any) -> Mapping[str, Any]:
    body = b""
    while True:
        message: Message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise InvalidRequestError(f"The request body must be a JSON object: {error}") from error
    if not isinstance(parsed, dict):
        raise InvalidRequestError("The request body must be a JSON object.")
    return parsed


def read_spec(kind: Any, spec: Any, strict: Any = True) -> GrammarSpec:
    """Read a constraint; raises InvalidRequestError when it is none."""
    kinds = get_args(Kind)
    if kind not in kinds:
        raise InvalidRequestError(f"`kind` must be one of {', '.join(kinds)}.", "kind")
    if not isinstance(strict, bool):
        raise InvalidRequestError("`strict` must be true or false.", "strict")
    if kind == "json_object":
        return GrammarSpec(kind, "", strict=strict)
    wanted = {"choice": list, "regex": str, "grammar": str}.get(kind, dict)
    if isinstance(spec, str) and (wanted is str or kind in ("json", "structural_tag")):
        return GrammarSpec(kind, spec, strict=strict)
    if not isinstance(spec, wanted) and not (kind == "json" and isinstance(spec, bool)):
        name = {dict: "an object", list: "a list of texts", str: "a text"}[wanted]
        raise InvalidRequestError(f"`spec` of the kind `{kind}` must be {name}.", "spec")
    return GrammarSpec(kind, json.dumps(spec, ensure_ascii=False), strict=strict)


def answer(body: Mapping[str, Any]) -> tuple[HttpHead, bytes]:
    return HttpHead(200, ((b"content-type", b"application/json"),)), json.dumps(body).encode()
