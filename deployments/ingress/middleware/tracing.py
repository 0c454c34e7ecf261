"""A span for every request, whose trace goes on in the engine."""

import asyncio
import os
from collections.abc import Awaitable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.tracing import GatewayTracingSettings
from deployments.errors import ServingError
from deployments.ingress.middleware.headers import TRACE_CONTEXT
from deployments.tracing import make_provider, shut_down

UNTRACED = frozenset({"/health"})
"""What load balancers ask for every second."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
"""https://opentelemetry.io/docs/specs/semconv/registry/attributes/gen-ai/"""
MAX_PATH_CHARS = 200

Attributes = Iterator[tuple[str, str | int | float]]


def traced(settings: GatewayTracingSettings | None, environment: Mapping[str, str] = os.environ) -> list[Middleware]:
    """List the middleware that traces; none without settings."""
    if settings is None:
        return []
    return [Middleware(Tracing, make_provider(settings, environment), settings.trust_clients)]


class Tracing:
    """Record each request as a span, and hand its context on as `traceparent`, in place of what the client sent.

    Names and attributes are OpenTelemetry's (https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server).
    Nothing of a body or of a query is recorded: they hold texts. Without sampling the context goes on, too, so that the
    engine does not sample either.
    """

    def __init__(self, app: ASGIApp, provider: TracerProvider, trust_clients: bool = False) -> None:
        self.app = app
        self._provider = provider
        self._tracer = provider.get_tracer("vllm_graph", version("vllm-graph"))
        self._trust_clients = trust_clients
        self._propagator = TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._flushing(send))
        elif scope["type"] != "http" or scope["path"] in UNTRACED:
            await self.app(scope, receive, send)
        else:
            await self._traced(scope, receive, send)

    def _flushing(self, send: Send) -> Send:
        async def send_after_the_last_spans(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown"):
                await asyncio.to_thread(shut_down, self._provider)
            await send(message)

        return send_after_the_last_spans

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        span = self._begin(scope)
        if not span.is_recording():
            await self.app(scope, receive, send)
            return
        status = 0

        def watched_send(message: Message) -> Awaitable[None]:  # no coroutine of its own: it is called for every chunk
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        error: BaseException | None = None
        try:
            await self.app(scope, receive, watched_send)
        except BaseException as raised:
            error = raised
            raise
        finally:
            end(span, scope, status, error)

    def _begin(self, scope: Scope) -> Span:
        given = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in TRACE_CONTEXT}
        # An empty context, not None: that would be the current one.
        parent = self._propagator.extract(given, Context()) if self._trust_clients else Context()
        span = self._tracer.start_span(method_of(scope), parent, SpanKind.SERVER, dict(first_attributes(scope)))
        mine: dict[str, str] = {}
        self._propagator.inject(mine, set_span_in_context(span, Context()))
        kept = [pair for pair in scope["headers"] if pair[0] not in TRACE_CONTEXT]
        scope["headers"] = kept + [(name.encode(), value.encode("latin-1")) for name, value in mine.items()]
        return span


def method_of(scope: Scope) -> str:
    return scope["method"] if scope["method"] in METHODS else "_OTHER"


def first_attributes(scope: Scope) -> Attributes:
    yield "http.request.method", method_of(scope)
    yield "url.path", scope["path"][:MAX_PATH_CHARS]
    yield "url.scheme", scope.get("scheme", "http")
    yield "network.protocol.version", scope["http_version"]
    yield "vllm_graph.request_id", scope["state"]["request_id"]


def end(span: Span, scope: Scope, status: int, error: BaseException | None) -> None:
    """Note what became of the request, and end its span. Only what the server did wrong is an error."""
    span.set_attributes(dict(last_attributes(scope)))
    if status:
        span.set_attribute("http.response.status_code", status)
    if route := route_of(scope):
        span.update_name(f"{method_of(scope)} {route}")
    if isinstance(error, asyncio.CancelledError) or (error is None and not status):
        span.set_attribute("error.type", "cancelled")  # the client has left
    elif kind := fault(scope, status, error):
        span.set_attribute("error.type", kind)
        span.set_status(StatusCode.ERROR)
    span.end()


def fault(scope: Scope, status: int, error: BaseException | None) -> str:
    """Name what the server did wrong, "" when nothing. A stream that broke off has begun with 200."""
    if status >= 500:
        return str(status)
    error = error or scope["state"].get("error")
    is_clients = error is None or (isinstance(error, ServingError) and error.status < 500)
    return "" if is_clients else type(error).__name__


def last_attributes(scope: Scope) -> Attributes:
    state = scope["state"]
    if route := route_of(scope):
        yield "http.route", route
        if operation := OPERATIONS.get(route):
            yield "gen_ai.operation.name", operation
    if (key := state.get("key")) is not None:
        yield "vllm_graph.key", key.name
    if (tokens := state.get("tokens")) is not None:
        yield "vllm_graph.tokens", tokens
    if (budget := state.get("budget")) is not None:
        if budget.model:
            yield "gen_ai.request.model", budget.model
        for layer, seconds in budget.parts().items():
            yield f"vllm_graph.layer.{layer}_s", seconds


def route_of(scope: Scope) -> str:
    """Return the pattern of the route that answered, such as `/v1/models/{name}`; "" when there was none."""
    route: Any = scope.get("route")
    return getattr(route, "path", "")
