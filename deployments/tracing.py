"""OpenTelemetry in a process of the graph: a provider of our own in the gateway, and what switches on vLLM's.

Nothing here ever waits for a collector: spans go into a bounded queue, a thread sends them, what does not fit is lost.
"""

import logging
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import get_tracer_provider

from config.tracing import GatewayTracingSettings, TracingSettings

logger = logging.getLogger("ray.serve")

PROTOCOLS = ("http/protobuf", "grpc")
LOG_INTERVAL_S = 60.0
"""A collector that is away makes OpenTelemetry log several lines per batch of spans, for ever."""
FLUSH_TIMEOUT_S = 3.0
"""What a replica that ends waits for its last spans to leave; OpenTelemetry itself would wait for 30 s."""


def protocol_of(settings: TracingSettings, environment: Mapping[str, str]) -> str:
    """Return the OTLP protocol, one of PROTOCOLS; raises ValueError when the environment names another one."""
    for_traces, for_all = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"
    protocol = settings.protocol or environment.get(for_traces) or environment.get(for_all) or PROTOCOLS[0]
    if protocol not in PROTOCOLS:
        raise ValueError(f"traces cannot be sent as `{protocol}`, only as {' or '.join(PROTOCOLS)}")
    return protocol


def endpoint_of(settings: TracingSettings, environment: Mapping[str, str]) -> str:
    """Return the URL that spans are sent to, with its path.

    As OpenTelemetry has it, a variable for traces holds the whole URL, one for all signals its beginning
    (https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp).
    """
    is_http = protocol_of(settings, environment) == "http/protobuf"
    if settings.endpoint is None and (whole := environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return whole
    if settings.endpoint is not None:
        needs_path, url = urlsplit(settings.endpoint).path in ("", "/"), settings.endpoint
    else:
        default = "http://localhost:4318" if is_http else "http://localhost:4317"
        needs_path, url = True, environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or default
    return f"{url.removesuffix('/')}/v1/traces" if is_http and needs_path else url


def make_provider(settings: GatewayTracingSettings, environment: Mapping[str, str]) -> TracerProvider:
    """Make the gateway's TracerProvider, which sends batches of spans from a thread of its own.

    Not set as the process's global one: Serve's own tracing, if it is on, has that.
    """
    name = settings.service_name or environment.get("OTEL_SERVICE_NAME") or "vllm-graph-gateway"
    provider = TracerProvider(
        sampler=sampler_of(settings, environment),
        resource=Resource.create({"service.name": name, "host.name": socket.gethostname()}),
        shutdown_on_exit=False,  # it would wait for the collector
    )
    provider.add_span_processor(BatchSpanProcessor(make_exporter(settings, environment)))
    log_sparsely()
    return provider


def sampler_of(settings: GatewayTracingSettings, environment: Mapping[str, str]) -> Sampler:
    """Return what decides which requests are traced: the settings, else what OpenTelemetry's variables say.

    The SDK would read these from the process, where in an engine's replica stands what is meant for vLLM
    (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
    """
    if settings.sample_ratio is not None:
        return ParentBased(TraceIdRatioBased(settings.sample_ratio))
    name = environment.get("OTEL_TRACES_SAMPLER") or "parentbased_always_on"
    roots: dict[str, Sampler] = {"always_off": ALWAYS_OFF, "traceidratio": TraceIdRatioBased(ratio_of(environment))}
    root = roots.get(name.removeprefix("parentbased_"), ALWAYS_ON)
    return ParentBased(root) if name.startswith("parentbased_") else root


def ratio_of(environment: Mapping[str, str]) -> float:
    """Return the share of requests to trace, 1 when the variable holds none."""
    try:
        ratio = float(environment.get("OTEL_TRACES_SAMPLER_ARG") or 1)
    except ValueError:
        return 1.0
    return ratio if 0 <= ratio <= 1 else 1.0


def make_exporter(settings: TracingSettings, environment: Mapping[str, str]) -> SpanExporter:
    endpoint = endpoint_of(settings, environment)
    if protocol_of(settings, environment) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter(endpoint=endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter(endpoint=endpoint)


def engine_arguments(settings: TracingSettings | None, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return vLLM's arguments that make it trace; none without settings."""
    return {} if settings is None else {"otlp_traces_endpoint": endpoint_of(settings, environment)}


def engine_environment(settings: TracingSettings | None, model: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an engine that traces; nothing without settings.

    vLLM makes its provider from the environment alone, and its own default of the protocol is gRPC.
    """
    if settings is None:
        return {}
    log_sparsely()
    given = environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = f"vllm_graph.model={model},host.name={socket.gethostname()}"
    return {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": protocol_of(settings, environment),
        "OTEL_SERVICE_NAME": settings.service_name or environment.get("OTEL_SERVICE_NAME") or "vllm-graph-engine",
        "OTEL_RESOURCE_ATTRIBUTES": f"{given},{resource}" if given else resource,
        # What no traced request asked for would be a trace of its own: probes, prompts that warm the engine up.
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    }


def shut_down(provider: TracerProvider) -> None:
    """Send what is left, for FLUSH_TIMEOUT_S at most."""
    thread = threading.Thread(target=provider.shutdown, daemon=True, name="last-spans")
    thread.start()
    thread.join(FLUSH_TIMEOUT_S)


def shut_down_engine(settings: TracingSettings | None) -> None:
    """Send what is left of vLLM's spans; its provider is the process's global one."""
    if settings is not None and isinstance(provider := get_tracer_provider(), TracerProvider):
        shut_down(provider)


def log_sparsely() -> None:
    """Let OpenTelemetry say something once in LOG_INTERVAL_S, in Serve's log."""
    theirs = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, Sparse) for handler in theirs.handlers):
        theirs.addHandler(Sparse())
        theirs.propagate = False


class Sparse(logging.Handler):
    """Passes one record on to Serve's log, and then none for LOG_INTERVAL_S; says how many were left out."""

    def __init__(self, interval_s: float = LOG_INTERVAL_S) -> None:
        super().__init__(logging.WARNING)
        self._interval_s = interval_s
        self._next_s = 0.0
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s:
            self._left_out += 1
            return
        more = f" ({self._left_out} more lines from OpenTelemetry before)" if self._left_out else ""
        self._next_s, self._left_out = now_s + self._interval_s, 0
        logger.warning("tracing: %s%s", record.getMessage(), more)
