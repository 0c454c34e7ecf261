"""API keys: who asks, and whether they may."""

from starlette.types import ASGIApp, Receive, Scope, Send

from config.auth import Key
from deployments.errors import AccessDeniedError, AuthenticationError
from deployments.ingress.middleware.key_ring import KeyRing
from deployments.types import Headers

OPEN_PATHS = frozenset({"/health"})


class ApiKeys:
    """Refuse requests without the key that their path needs, and note whose it is in `scope["state"]["key"]`.

    `/api/v1` needs a management key; everything else but OPEN_PATHS and OPTIONS any key, or none when no inference key
    is configured: the server has then checked at its start that only this machine reaches it, or was told to be open.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing) -> None:
        self.app = app
        self.ring = ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["state"]["key"] = self._admit(scope)
        await self.app(scope, receive, send)

    def _admit(self, scope: Scope) -> Key | None:
        if scope["path"] in OPEN_PATHS or scope["method"] == "OPTIONS":
            return None
        given = given_key(scope["headers"])
        key = self.ring.find(given) if given else None
        if needs_management(scope["path"]):
            if key is not None and key.kind != "management":
                raise AccessDeniedError("This needs a management key; the one given is for inference.")
            if key is None:
                raise AuthenticationError(no_key("management", given))
        elif key is None and not self.ring.is_open:
            raise AuthenticationError(no_key("inference", given))
        return key


def needs_management(path: str) -> bool:
    return path == "/api/v1" or path.startswith("/api/v1/")


def given_key(headers: Headers) -> bytes:
    """Read `Authorization: Bearer KEY`, else `X-API-Key: KEY`; b"" when there is neither."""
    found = b""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer" and key.strip():
                return key.strip()
        elif name == b"x-api-key":
            found = value.strip()
    return found


def no_key(kind: str, given: bytes) -> str:
    how = "Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`."
    return f"The API key is not valid here. {how}" if given else f"This needs an API key ({kind}). {how}"
