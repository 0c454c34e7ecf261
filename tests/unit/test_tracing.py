"""Spans of the gateway, and what switches on the engine's: no vLLM, a collector in this process."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import ValidationError
from starlette.types import Message, Receive, Scope, Send

from config.models import GatewaySettings, ModelSettings
from config.tracing import GatewayTracingSettings, TracingSettings
from deployments.errors import EngineUnavailableError, InternalError, OverloadedError, ServingError
from deployments.ingress.middleware import tracing
from deployments.ingress.middleware.stack import make_stack
from deployments.tracing import (
    Sparse,
    endpoint_of,
    engine_arguments,
    engine_environment,
    make_provider,
    protocol_of,
    sampler_of,
    shut_down,
)
from deployments.types import Usage
from deployments.usage.counters import Ledger
from tests.aio import run, until
from tests.collector import collecting
from tests.fakes import EVENTS, FixedModel, ScriptedEngine, ScriptedResponse, ask, get, make_api, post
from tests.logs import of_serve

CHAT = "/v1/chat/completions"
SECRET = "a text of the client's"
BODY = {"model": "a", "messages": [{"role": "user", "content": SECRET}]}
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE_ID}-{PARENT_ID}-01", f"00-{TRACE_ID}-{PARENT_ID}-00"


class Traced:
    """A gateway whose spans are kept here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        monkeypatch.setattr(tracing, "make_provider", lambda *_: self.provider)
        self.settings = GatewaySettings.model_validate({"tracing": settings})

    def ask(self, engine: ScriptedEngine, request: Any) -> Any:
        return ask(make_api(FixedModel("a", engine), settings=self.settings), request)

    def span(self) -> ReadableSpan:
        (span,) = self.exporter.get_finished_spans()
        return span


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Traced:
    return Traced(monkeypatch)


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def forwarded(engine: ScriptedEngine) -> dict[bytes, bytes]:
    (request,) = engine.requests
    return dict(request.headers)


def names_of_the_stack(settings: GatewaySettings) -> set[str]:
    return {getattr(entry.cls, "__name__", "") for entry in make_stack(settings, Ledger(), ())}


def is_sampled(engine: ScriptedEngine) -> bool:
    """Read the first flag of the context (https://www.w3.org/TR/trace-context/#sampled-flag)."""
    return int(forwarded(engine)[b"traceparent"].rsplit(b"-", 1)[1], 16) & 1 == 1


def test_a_request_is_a_span_and_the_engine_is_told_which(traced: Traced) -> None:
    engine = ScriptedEngine(ScriptedResponse([b"{}"], cost=Usage(3, 4)))
    response = traced.ask(engine, post(CHAT, BODY))
    span = traced.span()
    assert "Tracing" in names_of_the_stack(traced.settings)
    assert (span.name, span.kind, span.parent) == (f"POST {CHAT}", SpanKind.SERVER, None)
    assert span.status.status_code is StatusCode.UNSET
    trace_id, span_id = ids(span)
    assert forwarded(engine)[b"traceparent"].startswith(f"00-{trace_id}-{span_id}-".encode())
    assert is_sampled(engine)
    found = attributes(span)
    layers = {name: found.pop(name) for name in list(found) if name.startswith("vllm_graph.layer.")}
    assert found == {
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
        "url.path": CHAT,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "a",
        "vllm_graph.request_id": response.headers["x-request-id"],
        "vllm_graph.tokens": 7,
    }
    assert layers
    assert all(name.endswith("_s") for name in layers)


def test_a_stream_is_one_span_to_its_end(traced: Traced) -> None:
    engine = ScriptedEngine(ScriptedResponse([b"data: 1\n\n", b"data: 2\n\n"], EVENTS))
    response = traced.ask(engine, post(CHAT, {**BODY, "stream": True}))
    assert response.text.count("data:") == 2
    span = traced.span()
    assert attributes(span)["http.response.status_code"] == 200
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in attributes(span)


def test_nothing_that_clients_write_is_recorded(traced: Traced) -> None:
    key = "sk-secret-0123456789"
    engine = ScriptedEngine(ScriptedResponse([b'{"text": "' + SECRET.encode() + b'"}']))
    request = post(f"{CHAT}?doc=a+text+of", BODY)
    request.headers["authorization"] = f"Bearer {key}"
    traced.ask(engine, request)
    recorded = traced.span().to_json()
    assert "text of" not in recorded
    assert "text+of" not in recorded
    assert key not in recorded


def test_the_pattern_of_a_route_is_the_name_not_what_stands_in_its_place(traced: Traced) -> None:
    traced.ask(ScriptedEngine(), get("/v1/models/a"))
    span = traced.span()
    assert span.name == "GET /v1/models/{name:path}"
    assert attributes(span)["url.path"] == "/v1/models/a"


def test_what_has_no_route_has_no_name_of_its_own(traced: Traced) -> None:
    assert traced.ask(ScriptedEngine(), get("/nothing")).status_code == 404
    span = traced.span()
    assert (span.name, span.status.status_code) == ("GET", StatusCode.UNSET)
    assert "http.route" not in attributes(span)


def test_health_is_not_traced(traced: Traced) -> None:
    assert traced.ask(ScriptedEngine(), get("/health")).status_code == 200
    assert not traced.exporter.get_finished_spans()


@pytest.mark.parametrize("given", [SAMPLED, UNSAMPLED, "00-xyz", "\xff"])
def test_a_clients_trace_is_not_continued(traced: Traced, given: str) -> None:
    engine = ScriptedEngine()
    request = post(CHAT, BODY)
    request.headers = type(request.headers)([*request.headers.raw, (b"traceparent", given.encode("latin-1"))])
    request.headers["tracestate"] = "a=b"
    traced.ask(engine, request)
    span = traced.span()
    assert span.parent is None
    assert ids(span)[0] != TRACE_ID
    assert ids(span)[0].encode() in forwarded(engine)[b"traceparent"]
    assert b"tracestate" not in forwarded(engine)


def test_a_trusted_clients_trace_is(monkeypatch: pytest.MonkeyPatch) -> None:
    traced, engine = Traced(monkeypatch, trust_clients=True), ScriptedEngine()
    request = post(CHAT, BODY)
    request.headers.update({"traceparent": SAMPLED, "tracestate": "a=b"})
    traced.ask(engine, request)
    span = traced.span()
    assert span.parent is not None
    assert (ids(span)[0], f"{span.parent.span_id:016x}") == (TRACE_ID, PARENT_ID)
    assert forwarded(engine)[b"traceparent"].startswith(f"00-{TRACE_ID}-{ids(span)[1]}-".encode())
    assert is_sampled(engine)
    assert forwarded(engine)[b"tracestate"] == b"a=b"


def test_a_trusted_client_says_whether_it_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    traced, engine = Traced(monkeypatch, trust_clients=True), ScriptedEngine()
    request = post(CHAT, BODY)
    request.headers["traceparent"] = UNSAMPLED
    assert traced.ask(engine, request).status_code == 200
    assert not traced.exporter.get_finished_spans()
    assert forwarded(engine)[b"traceparent"].startswith(f"00-{TRACE_ID}".encode())
    assert not is_sampled(engine)


def test_what_is_not_sampled_here_is_not_in_the_engine(traced: Traced) -> None:
    traced.provider.sampler = ParentBased(ALWAYS_OFF)
    engine = ScriptedEngine()
    assert traced.ask(engine, post(CHAT, BODY)).status_code == 200
    assert not traced.exporter.get_finished_spans()
    assert not is_sampled(engine)


def test_without_tracing_there_is_no_middleware_and_no_context_of_a_clients() -> None:
    engine = ScriptedEngine()
    assert "Tracing" not in names_of_the_stack(GatewaySettings())
    request = post(CHAT, BODY)
    request.headers["traceparent"] = SAMPLED
    ask(make_api(FixedModel("a", engine)), request)
    assert b"traceparent" not in forwarded(engine)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (OverloadedError("full", None, 1), 429, None),
        (EngineUnavailableError("gone", None, 1), 503, "503"),
        (ValueError(SECRET), 500, "500"),
    ],
)
def test_only_what_the_server_did_wrong_is_an_error(
    traced: Traced, error: Exception, status: int, kind: str | None
) -> None:
    assert traced.ask(ScriptedEngine(error), post(CHAT, BODY)).status_code == status
    span = traced.span()
    assert attributes(span)["http.response.status_code"] == status
    assert attributes(span).get("error.type") == kind
    assert span.status.status_code is (StatusCode.ERROR if kind else StatusCode.UNSET)
    assert SECRET not in span.to_json()


@pytest.mark.parametrize("error", [EngineUnavailableError("lost", None, 1), InternalError()])
def test_a_stream_that_breaks_off_is_an_error(traced: Traced, error: ServingError) -> None:
    engine = ScriptedEngine(ScriptedResponse([b"data: 1\n\n", error], EVENTS))
    assert traced.ask(engine, post(CHAT, {**BODY, "stream": True})).status_code == 200
    span = traced.span()
    assert attributes(span)["error.type"] == type(error).__name__
    assert attributes(span)["http.response.status_code"] == 200
    assert span.status.status_code is StatusCode.ERROR


def a_scope() -> Scope:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "BREW",
        "path": "/" + "x" * 1000,
        "headers": [],
        "state": {"request_id": "r"},
    }


async def no_message() -> Message:
    raise AssertionError("nobody asked for it")


async def ignore(message: Message) -> None:
    pass


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_client_that_leaves_is_no_error_of_the_server(traced: Traced, has_begun: bool) -> None:
    waiting = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        if has_begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        waiting.set()
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.ensure_future(tracing.Tracing(endless, traced.provider)(a_scope(), no_message, ignore))
        await until(waiting.is_set)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(main())
    span = traced.span()
    assert attributes(span)["error.type"] == "cancelled"
    assert attributes(span).get("http.response.status_code") == (200 if has_begun else None)
    assert span.status.status_code is StatusCode.UNSET


def test_names_have_bounds(traced: Traced) -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    run(tracing.Tracing(silent, traced.provider)(a_scope(), no_message, ignore))
    span = traced.span()
    assert (span.name, attributes(span)["http.request.method"]) == ("_OTHER", "_OTHER")
    assert len(attributes(span)["url.path"]) == tracing.MAX_PATH_CHARS


def test_chunks_reach_the_client_as_they_are_and_as_soon(traced: Traced) -> None:
    """The wrapper hands the server's own awaitable on: no step of its own for each chunk."""
    made: list[Any] = []

    def send(message: Message) -> Any:
        made.append(ignore(message))
        return made[-1]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        awaited: Any = send({"type": "http.response.body", "body": b"x", "more_body": True})
        assert awaited is made[-1]
        await awaited

    run(tracing.Tracing(app, traced.provider)(a_scope(), no_message, send))


def test_the_last_spans_leave_before_the_server_says_that_it_has_ended() -> None:
    seen: list[tuple[str, int]] = []

    async def main() -> None:
        with collecting() as collector:
            settings = GatewayTracingSettings(endpoint=collector.url, service_name="mine")
            provider = make_provider(settings, {})
            provider.get_tracer("test").start_span("last").end()

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                await send({"type": "lifespan.shutdown.complete"})

            async def send(message: Message) -> None:
                seen.append((message["type"], len(collector.spans())))

            await tracing.Tracing(app, provider)({"type": "lifespan"}, no_message, send)
            (span,) = collector.spans()
            assert span.resource["service.name"] == "mine"

    run(main())
    assert seen == [("lifespan.shutdown.complete", 1)]


@pytest.fixture
def serves_log() -> Iterator[list[str]]:
    with of_serve() as messages:
        yield messages


def test_a_collector_that_is_away_costs_one_line(monkeypatch: pytest.MonkeyPatch, serves_log: list[str]) -> None:
    theirs = logging.getLogger("opentelemetry")
    monkeypatch.setattr(theirs, "handlers", [])
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.01")
    settings = GatewayTracingSettings(endpoint="http://127.0.0.1:9")
    provider = make_provider(settings, {})
    for _ in range(3000):  # more than the queue holds
        provider.get_tracer("test").start_span("lost").end()
    shut_down(provider)
    (line,) = serves_log
    assert line.startswith("tracing: ")


def test_a_log_that_repeats_itself_is_cut(serves_log: list[str]) -> None:
    handler = Sparse(interval_s=3600)
    record = logging.LogRecord("opentelemetry.x", logging.ERROR, __file__, 1, "no %s", ("collector",), None)
    for _ in range(5):
        handler.handle(record)
    handler._next_s = 0.0
    handler.handle(record)
    assert serves_log == [
        "tracing: no collector",
        "tracing: no collector (4 more lines from OpenTelemetry before)",
    ]


FOR_TRACES, FOR_ALL = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("settings", "environment", "endpoint"),
    [
        ({}, {}, "http://localhost:4318/v1/traces"),
        ({"protocol": "grpc"}, {}, "http://localhost:4317"),
        ({"endpoint": "http://c:4318"}, {FOR_TRACES: "http://d/x"}, "http://c:4318/v1/traces"),
        ({"endpoint": "http://c:4318/"}, {}, "http://c:4318/v1/traces"),
        ({"endpoint": "https://c/otlp/v1/traces"}, {}, "https://c/otlp/v1/traces"),
        ({"endpoint": "http://c:4317", "protocol": "grpc"}, {}, "http://c:4317"),
        ({}, {FOR_TRACES: "http://d/x", FOR_ALL: "http://e"}, "http://d/x"),
        ({}, {FOR_ALL: "http://e/base/"}, "http://e/base/v1/traces"),
        ({}, {FOR_ALL: "http://e:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://e:4317"),
    ],
)
def test_where_spans_go(settings: dict[str, str], environment: dict[str, str], endpoint: str) -> None:
    assert endpoint_of(TracingSettings.model_validate(settings), environment) == endpoint


def test_a_protocol_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="http/json"):
        protocol_of(TracingSettings(), {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"})
    with pytest.raises(ValidationError):
        GatewaySettings.model_validate({"tracing": {"protocol": "http/json"}})
    with pytest.raises(ValidationError):
        ModelSettings.model_validate({"name": "a", "tracing": {"endpoint": "localhost:4318"}})
    with pytest.raises(ValidationError, match="sample_ratio"):  # the gateway's alone
        ModelSettings.model_validate({"name": "a", "tracing": {"sample_ratio": 0.1}})


def test_what_switches_on_the_engines_spans() -> None:
    settings = TracingSettings(endpoint="http://c:4318")
    assert engine_arguments(settings, {}) == {"otlp_traces_endpoint": "http://c:4318/v1/traces"}
    environment = engine_environment(settings, "demo", {"OTEL_RESOURCE_ATTRIBUTES": "a=b"})
    resource = environment.pop("OTEL_RESOURCE_ATTRIBUTES")
    assert resource.startswith("a=b,vllm_graph.model=demo,host.name=")
    assert environment == {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": "vllm-graph-engine",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    }
    assert engine_arguments(None, {}) == {}
    assert engine_environment(None, "demo", {}) == {}


def test_the_share_of_requests_that_are_traced() -> None:
    ratio = make_provider(GatewayTracingSettings(sample_ratio=0.25), {})
    assert "0.25" in ratio.sampler.get_description()
    shut_down(ratio)


@pytest.mark.parametrize(
    ("ratio", "environment", "expected"),
    [
        (None, {}, "ParentBased{root:AlwaysOnSampler"),
        (0.25, {"OTEL_TRACES_SAMPLER": "always_off"}, "ParentBased{root:TraceIdRatioBased{0.25}"),
        (None, {"OTEL_TRACES_SAMPLER": "always_off"}, "AlwaysOffSampler"),
        (None, {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, "ParentBased{root:AlwaysOffSampler"),
        (None, {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}, "TraceIdRatioBased{0.5}"),
        (None, {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "7"}, "TraceIdRatioBased{1.0}"),
        (None, {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "x"}, "TraceIdRatioBased{1.0}"),
    ],
)
def test_the_environment_that_is_given_says_what_is_traced_unless_the_settings_do(
    monkeypatch: pytest.MonkeyPatch, ratio: float | None, environment: dict[str, str], expected: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")  # what is meant for vLLM
    settings = GatewayTracingSettings(sample_ratio=ratio)
    assert sampler_of(settings, environment).get_description().startswith(expected)
