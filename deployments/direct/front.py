"""The HTTP application of an engine's replica: the gateway's policy, once it is known, before its own engine."""

from collections.abc import Awaitable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.direct.local import EngineLostError, LocalModel
from deployments.errors import EngineUnavailableError
from deployments.haproxy_models import RETRIED_HEADER, RETRY_STATUS
from deployments.ingress.api import create_direct_api
from deployments.ingress.middleware.errors import error_response
from deployments.ingress.middleware.key_ring import KeyRing
from deployments.ingress.middleware.observing import Recorder
from deployments.instance_types import Policy
from deployments.usage.counters import Ledger

RETRY_AFTER_S = 1
RETRIED = (RETRIED_HEADER.encode(), str(RETRY_STATUS).encode())


class DirectFront:
    """An ASGI application whose policy may change while it runs; requests keep the one they began with.

    `prefix`: what stands before the paths of these routes. `environment`: as it was before vLLM's was set.
    """

    def __init__(self, model: LocalModel, prefix: str, recorder: Recorder, environment: Mapping[str, str]) -> None:
        self.ledger = Ledger()
        self._model = model
        self._prefix = prefix
        self._recorder = recorder
        self._environment = environment
        self._policy: Policy | None = None
        self._ring: KeyRing | None = None
        self._app: ASGIApp = not_yet

    @property
    def policy(self) -> Policy | None:
        return self._policy

    def take(self, policy: Policy) -> None:
        """Have a policy hold for the requests that come from now on."""
        if self._ring is None or self._policy is None or self._policy.settings != policy.settings:
            self._ring = KeyRing(policy.settings.auth)
            self._app = create_direct_api(
                self._model,
                policy.settings,
                ring=self._ring,
                ledger=self.ledger,
                recorder=self._recorder,
                environment=self._environment,
                server_echoes_request_id=True,
            )
        self._ring.learn(policy.keys)
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if RETRIED not in scope["headers"]:
            send = without_retry_status(send)
        path = scope["path"].removeprefix(self._prefix) or "/"
        await self._app({**scope, "path": path, "raw_path": path.encode(), "root_path": ""}, receive, send)


async def not_yet(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer while nobody has said whom to let in; another replica may know."""
    error = EngineLostError("The model waits for its gateway. Retry.", None, RETRY_AFTER_S)
    if scope["type"] == "http":
        await error_response(scope["path"], error)(scope, receive, send)


def without_retry_status(send: Send) -> Send:
    """Say 503 where nobody would ask another replica: without this project's rules in HAProxy, or from its inside."""

    def forward(message: Message) -> Awaitable[None]:  # no coroutine of its own: it is called for every chunk
        if message["type"] == "http.response.start" and message["status"] == RETRY_STATUS:
            message = {**message, "status": EngineUnavailableError.status}
        return send(message)

    return forward
