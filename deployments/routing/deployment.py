"""The choice of a replica on the direct data plane, where HAProxy asks for it before it sends a request."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from config.routing import RoutingSettings
from deployments.routing.prefixes import SESSION_HEADER
from deployments.types import HttpRequest

logger = logging.getLogger("ray.serve")

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ROUTE = "/internal/route"
NOBODY = "none"
"""No replica has this name. HAProxy then sends the request through Serve's own proxy, which waits for a replica; any
answer but 200 would be a 503 to the client."""


class ChoiceApp:
    """An ASGI application that answers `POST /internal/route` with the name of a replica: `{"replica_id": "..."}`.

    The question's body is the client's, or its beginning; its `x-session-id` is the client's, too. HAProxy looks for
    the name with a pattern, so that the answer must be a flat object of plain text.

    choose: makes Serve's context manager of a selection.
    """

    def __init__(
        self, choose: Callable[[HttpRequest], AbstractAsyncContextManager[Any]], answer_timeout_s: float
    ) -> None:
        self._choose = choose
        self._answer_timeout_s = answer_timeout_s
        self._has_failed = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] != ROUTE:
            await answer(send, 404, {"error": f"only {ROUTE} is served here"})
            return
        session = tuple((name, value) for name, value in scope["headers"] if name == SESSION_HEADER)
        replica = await self._replica(HttpRequest("POST", ROUTE, b"", session, await read_body(receive)))
        await answer(send, 200, {"replica_id": replica})

    async def _replica(self, request: HttpRequest) -> str:
        try:
            async with asyncio.timeout(self._answer_timeout_s), self._choose(request) as selection:
                return str(selection._replica.replica_id.to_full_id_str())
        except TimeoutError:
            return NOBODY  # there is none, for example because the model is scaled to zero
        except Exception:
            if not self._has_failed:  # once: it may be every request
                self._has_failed = True
                logger.exception("could not choose a replica: Serve's proxy chooses, now and later")
            return NOBODY


async def read_body(receive: Receive) -> bytes:
    """Return what has come of a body when it ends or its sender leaves."""
    chunks, has_more = [], True
    while has_more:
        message = await receive()
        chunks.append(message.get("body", b""))
        has_more = message.get("more_body", False)
    return b"".join(chunks)


async def answer(send: Send, status: int, content: dict[str, str]) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@serve.deployment
@serve.ingress()
class ReplicaChoice:
    """Chooses replicas for HAProxy, one on each node where there is an HAProxy; Serve sees to that."""

    def __init__(self, engine: DeploymentHandle, settings: RoutingSettings) -> None:
        engine._init()  # so that it knows the replicas before the first request

        def choose(request: HttpRequest) -> AbstractAsyncContextManager[Any]:
            # Nothing is reserved: the request comes another way.
            selection: AbstractAsyncContextManager[Any] = engine.choose_replica(request, _reserve=False)
            return selection

        self._app = ChoiceApp(choose, settings.answer_timeout_s)

    async def __serve_build_asgi_app__(self) -> ChoiceApp:
        return self._app


@serve.deployment
class EngineFront:
    """The front that every application must have, without a replica: the gateway calls the Engine itself.

    With HAProxy, Serve lets no front choose its replicas, unless HAProxy asks for each choice.
    """

    def __init__(self, engine: DeploymentHandle) -> None:
        pass
