"""An OpenTelemetry collector in this process: takes OTLP over HTTP, keeps the spans."""

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

POLL_S = 0.02
"""How soon it ends."""

Value = str | bool | int | float


@dataclass(frozen=True)
class Span:
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    """ "": it begins the trace."""
    attributes: dict[str, Value]
    resource: dict[str, Value]
    """Of the process it is from."""
    start_s: float
    end_s: float
    """Unix time."""


class Collector:
    """What was received so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._lock = threading.Lock()
        self._spans: list[Span] = []

    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans)

    def trace_of(self, request_id: str) -> dict[str, list[Span]]:
        """Return the spans of the gateway's request with this id and of all that it caused, by name."""
        spans = self.spans()
        traces = {span.trace_id for span in spans if span.attributes.get("vllm_graph.request_id") == request_id}
        found: dict[str, list[Span]] = {}
        for span in spans:
            if span.trace_id in traces:
                found.setdefault(span.name, []).append(span)
        return found

    def receive(self, body: bytes) -> None:
        with self._lock:
            self._spans += parsed(ExportTraceServiceRequest.FromString(body))


def parsed(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for process in request.resource_spans:
        resource = values(process.resource.attributes)
        for scope in process.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    values(span.attributes),
                    resource,
                    span.start_time_unix_nano / 1e9,
                    span.end_time_unix_nano / 1e9,
                )


def values(attributes: Iterable[KeyValue]) -> dict[str, Value]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in attributes}


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """Listen on a free loopback port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            is_known = self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            if is_known:
                collector.receive(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if is_known else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()
