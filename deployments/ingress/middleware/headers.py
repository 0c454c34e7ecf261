"""Which of a client's headers go on to an engine."""

from collections.abc import Iterable

from deployments.types import Headers

FORWARDED = frozenset({b"content-type", b"accept", b"x-request-id", b"x-session-id", b"traceparent", b"tracestate"})


def engine_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Keep what an engine understands; keys, cookies and Serve's control headers stay outside."""
    return tuple((name, value) for name, value in headers if name in FORWARDED)
