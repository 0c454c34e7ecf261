"""Web pages: which may call, and what browsers are told about an answer."""

from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.access import is_loopback
from deployments.errors import AccessDeniedError

ORIGIN_HEADERS = frozenset({b"origin", b"sec-fetch-site", b"host"})

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}

EXPOSED_HEADERS = (
    "x-request-id",
    "retry-after",
    "x-guided-receipt",
    "x-latency-budget",
    *(f"x-ratelimit-{name}-{what}" for name in ("limit", "remaining", "reset") for what in ("requests", "tokens")),
)
"""What a page may read of an answer besides its body."""


class SecurityHeaders:
    """Add SECURITY_HEADERS to every answer that does not set them itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class Origins:
    """Refuse requests of web pages on other origins than the allowed ones.

    For servers without keys: a browser sends some POSTs without asking first, so CORS alone does not keep a page from
    using a server that is open on loopback. Pages of this machine may. Clients that are no browsers send no `Origin`.

    `only_local_names`: refuse every name of this server but `localhost` and loopback addresses, too. A page may have
    its own name changed to 127.0.0.1 (DNS rebinding), and is then on the same origin as this server.
    """

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...], only_local_names: bool) -> None:
        self.app = app
        self.allowed = allowed
        self.only_local_names = only_local_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name: value for name, value in scope["headers"] if name in ORIGIN_HEADERS}
            self._check_name(headers.get(b"host", b"localhost").decode("latin-1"))
            origin = headers.get(b"origin")
            # What a page loads without a script, an image for example, has no origin.
            if origin is None and headers.get(b"sec-fetch-site") == b"cross-site":
                origin = b"another site"
            if origin is not None:
                self._check(origin.decode("latin-1"))
        await self.app(scope, receive, send)

    def _check_name(self, host: str) -> None:
        if self.only_local_names and not is_loopback(host_of(f"http://{host}")):
            raise AccessDeniedError(
                f"Without keys this server is `localhost`, not `{host[:200]}`. Configure inference keys, or "
                "`auth.allow_open` when something else keeps strangers out."
            )

    def _check(self, origin: str) -> None:
        if "*" in self.allowed or origin in self.allowed:
            return
        if is_loopback(host_of(origin)):
            return
        raise AccessDeniedError(f"Pages of `{origin[:200]}` may not call this server; see `auth.allowed_origins`.")


def host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None
