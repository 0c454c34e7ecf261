"""Settings of tracing: where spans go, and whose traces are continued."""

from typing import Literal

from pydantic import Field

from config.settings import Settings

Protocol = Literal["http/protobuf", "grpc"]


class TracingSettings(Settings):
    """Where spans go. What is null is read from OpenTelemetry's own environment variables, in the replica.

    Its other variables hold, too: `OTEL_EXPORTER_OTLP_HEADERS` for a collector that wants a key, `OTEL_BSP_*` for the
    queue of spans, `OTEL_RESOURCE_ATTRIBUTES` (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/).
    """

    endpoint: str | None = Field(default=None, pattern=r"^https?://[^/\s]+(/\S*)?$")
    """A collector's OTLP address, `http://localhost:4318` or for gRPC `http://localhost:4317`; with HTTP and no path
    `/v1/traces` is added. null: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_EXPORTER_OTLP_ENDPOINT`, this machine's."""
    protocol: Protocol | None = None
    """null: `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`, `OTEL_EXPORTER_OTLP_PROTOCOL`, `http/protobuf`."""
    service_name: str | None = Field(default=None, min_length=1)
    """`service.name` of the spans. null: `OTEL_SERVICE_NAME`, else `vllm-graph-gateway` and `vllm-graph-engine`."""


class GatewayTracingSettings(TracingSettings):
    """Which requests are traced is decided here, once for the whole graph: engines follow."""

    sample_ratio: float | None = Field(default=None, ge=0, le=1)
    """Share of the requests that are traced. null: `OTEL_TRACES_SAMPLER`, else all."""
    trust_clients: bool = False
    """Continue the trace that a client's `traceparent` names, and sample as it says. Otherwise every request begins a
    trace: anybody could fill the collector, or write into other people's traces."""
