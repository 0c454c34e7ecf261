"""vLLM's HTTP application without what it does for each request and chunk in vain here."""

from typing import Any

UNUSED_MIDDLEWARE = ("PrometheusInstrumentatorMiddleware", "CORSMiddleware")
"""Wrap every chunk for vLLM's own `/metrics`, which nobody reaches here, and for what the gateway decides."""
MOST_USED = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")


def lighten(app: Any) -> None:
    """Take out middleware that does nothing here, and put the routes first that are asked for most.

    `app`: what vLLM's `build_app` returns. Routes are tried in turn; none of vLLM's with a parameter fits these paths.
    """
    app.user_middleware = [one for one in app.user_middleware if one.cls.__name__ not in UNUSED_MIDDLEWARE]
    app.middleware_stack = app.build_middleware_stack()  # it is built already
    app.router.routes.sort(key=lambda route: getattr(route, "path", "") not in MOST_USED)
