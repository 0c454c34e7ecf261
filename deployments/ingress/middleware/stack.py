"""The whole policy in front of an application, in the order in which a request meets it."""

import os
from collections.abc import Collection, Mapping

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from config.auth import AuthSettings
from config.models import GatewaySettings
from deployments.ingress.middleware.admission import Admission
from deployments.ingress.middleware.allow_list import AllowList
from deployments.ingress.middleware.errors import Errors
from deployments.ingress.middleware.headers import HeaderHygiene
from deployments.ingress.middleware.key_ring import KeyRing
from deployments.ingress.middleware.keys import ApiKeys
from deployments.ingress.middleware.limits import KeyLimiter
from deployments.ingress.middleware.observing import Observing, Recorder
from deployments.ingress.middleware.origins import EXPOSED_HEADERS, Origins, SecurityHeaders
from deployments.ingress.middleware.request_id import RequestId
from deployments.ingress.middleware.tracing import traced
from deployments.usage.counters import Ledger

LOOPBACK_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"


def make_stack(
    settings: GatewaySettings,
    ledger: Ledger,
    paths: Collection[str],
    prefixes: tuple[str, ...] = (),
    server_echoes_request_id: bool = False,
    ring: KeyRing | None = None,
    recorder: Recorder | None = None,
    environment: Mapping[str, str] = os.environ,
) -> list[Middleware]:
    """List the middleware, outermost first. `paths` and `prefixes` are the routes that exist.

    `ring`: the keys, made from the same settings, where stored ones come and go; None: the configured ones only.
    `recorder`: is told how each request ended, and where its time went. `environment`: has OpenTelemetry's variables.
    """
    auth = settings.auth
    ring = ring or KeyRing(auth)
    return [
        Middleware(Observing, recorder, paths, prefixes),
        Middleware(RequestId, server_echoes=server_echoes_request_id),
        *traced(settings.tracing, environment),
        Middleware(SecurityHeaders),
        *cross_origin(auth),
        Middleware(Errors),
        Middleware(AllowList, paths, prefixes),
        *same_origin(auth),
        Middleware(ApiKeys, ring),
        Middleware(KeyLimiter, ring, ledger),
        Middleware(Admission, settings.max_concurrent_requests, settings.retry_after_s),
        Middleware(HeaderHygiene, is_traced=settings.tracing is not None),
    ]


def cross_origin(auth: AuthSettings) -> list[Middleware]:
    """Let browsers show the allowed pages our answers. Without credentials: a page sends its key itself.

    Without keys these are also the pages of this machine: front ends under development, which nothing else lets in.
    """
    is_keyless = not auth.has("inference")
    if not (auth.allowed_origins or is_keyless):
        return []
    methods = ["GET", "POST", "PUT", "DELETE"]
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=auth.allowed_origins,
            allow_origin_regex=LOOPBACK_ORIGIN if is_keyless else None,
            allow_methods=methods,
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    ]


def same_origin(auth: AuthSettings) -> list[Middleware]:
    """Keep other pages from a server without keys; with keys a page can do nothing unless it has one."""
    return [] if auth.has("inference") else [Middleware(Origins, auth.allowed_origins, not auth.allow_open)]
