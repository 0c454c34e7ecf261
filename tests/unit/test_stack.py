"""The policy in front of a bare ASGI application: no FastAPI, no graph."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.models import GatewaySettings
from deployments.errors import OverloadedError
from deployments.ingress.middleware.stack import make_stack
from deployments.usage.counters import Ledger
from tests.aio import run, settle, until

INFERENCE, MANAGEMENT = "sk-inference-0123456789", "sk-management-0123456789"
PATHS = ("/v1/chat/completions", "/health")
PREFIXES = ("/api/",)


class Application:
    """Answers 200, or raises; remembers what it was asked and whether it was cancelled."""

    def __init__(self, answer: Exception | asyncio.Event | None = None, tokens: int = 0) -> None:
        self.answer = answer
        self.tokens = tokens
        self.scopes: list[Scope] = []
        self.is_cancelled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if isinstance(self.answer, Exception):
            raise self.answer
        try:
            if self.answer is not None:
                await self.answer.wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        scope["state"]["tokens"] = self.tokens
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b"{}"})


def guard(app: ASGIApp, ledger: Ledger | None = None, **settings: Any) -> ASGIApp:
    stack = make_stack(GatewaySettings.model_validate(settings), ledger or Ledger(), PATHS, PREFIXES)
    for cls, args, kwargs in reversed(stack):
        app = cls(app, *args, **kwargs)
    return app


WITH_KEYS: dict[str, Any] = {"auth": {"inference_keys": INFERENCE, "management_keys": MANAGEMENT}}


async def send(app: ASGIApp, method: str, path: str, headers: list[tuple[str, str]]) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        return await client.request(method, path, headers=headers)


async def serve(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def ask(app: ASGIApp, path: str = PATHS[0], method: str = "POST", **headers: str) -> httpx.Response:
    return run(send(app, method, path, [(name.replace("_", "-"), value) for name, value in headers.items()]))


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {INFERENCE}"},
        {"authorization": f"bearer  {INFERENCE} "},
        {"x_api_key": INFERENCE},
        {"authorization": "Basic abc", "x_api_key": INFERENCE},
        {"authorization": f"Bearer {MANAGEMENT}"},
    ],
)
def test_a_key_opens(headers: dict[str, str]) -> None:
    assert ask(guard(Application(), **WITH_KEYS), **headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": INFERENCE},
        {"authorization": f"Bearer {INFERENCE}x"},
        {"authorization": f"Bearer {INFERENCE[:-1]}"},
        {"authorization": f"Bearer {INFERENCE.upper()}"},
        {"authorization": "Bearer wrong", "x_api_key": INFERENCE},
        {"cookie": f"authorization=Bearer {INFERENCE}"},
        {"x_forwarded_for": "127.0.0.1"},
    ],
)
def test_without_the_key_nothing_reaches_the_application(headers: dict[str, str]) -> None:
    app = Application()
    response = ask(guard(app, **WITH_KEYS), **headers)
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "authentication_error"
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["x-request-id"]
    assert INFERENCE not in response.text
    assert not app.scopes


@pytest.mark.parametrize(("key", "status"), [("", 401), (INFERENCE, 403), (MANAGEMENT, 200)])
@pytest.mark.parametrize("path", ["/api/v1/instances", "/api/v1/"])
def test_management_needs_its_own_kind_of_key(key: str, status: int, path: str) -> None:
    response = ask(guard(Application(), **WITH_KEYS), path, x_api_key=key)
    assert response.status_code == status
    if status == 403:
        assert response.json()["error"]["type"] == "permission_error"


def test_health_and_options_need_no_key() -> None:
    assert ask(guard(Application(), **WITH_KEYS), "/health", "GET").status_code == 200
    assert ask(guard(Application(), **WITH_KEYS), method="OPTIONS").status_code == 200


def test_without_inference_keys_inference_is_open_and_management_is_not() -> None:
    app = guard(Application(), auth={"management_keys": MANAGEMENT})
    assert ask(app, authorization="Bearer none").status_code == 200
    assert ask(app, "/api/v1/instances").status_code == 401


@pytest.mark.parametrize("path", ["/collective_rpc", "/v1/chat/completions/", "//v1/chat/completions", "/V1/CHAT", "/"])
def test_only_listed_routes_exist(path: str) -> None:
    app = Application()
    assert ask(guard(app), path).status_code == 404
    assert not app.scopes


def test_web_sockets_are_closed() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send_(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": PATHS[0], "headers": [], "state": {}}
    run(serve(guard(Application()), scope, receive, send_))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_requests_per_minute() -> None:
    ledger = Ledger(lambda: 600.0)
    settings = {"auth": {"inference_keys": INFERENCE, "default_limits": {"requests_per_minute": 2}}}
    app = Application()
    guarded = guard(app, ledger, **settings)
    left = [ask(guarded, x_api_key=INFERENCE).headers["x-ratelimit-remaining-requests"] for _ in range(2)]
    assert left == ["1", "0"]
    refused = ask(guarded, x_api_key=INFERENCE)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["x-ratelimit-limit-requests"] == "2"
    assert len(app.scopes) == 2


def test_tokens_per_minute_count_what_the_application_left() -> None:
    ledger = Ledger(lambda: 600.0)
    settings = {"auth": {"inference_keys": INFERENCE, "default_limits": {"tokens_per_minute": 10}}}
    guarded = guard(Application(tokens=7), ledger, **settings)
    assert [ask(guarded, x_api_key=INFERENCE).status_code for _ in range(3)] == [200, 200, 429]


def test_concurrent_requests() -> None:
    async def main() -> None:
        ledger, gate = Ledger(), asyncio.Event()
        settings = {"auth": {"inference_keys": INFERENCE, "default_limits": {"concurrent_requests": 1}}}
        guarded = guard(Application(gate), ledger, **settings)
        first = asyncio.ensure_future(send(guarded, "POST", PATHS[0], [("x-api-key", INFERENCE)]))
        await until(lambda: bool(ledger.own))
        assert (await send(guarded, "POST", PATHS[0], [("x-api-key", INFERENCE)])).status_code == 429
        gate.set()
        assert (await first).status_code == 200
        assert (await send(guarded, "POST", PATHS[0], [("x-api-key", INFERENCE)])).status_code == 200

    run(main())


@pytest.mark.parametrize("answer", [ValueError("x"), OverloadedError("full")])
def test_a_request_that_fails_is_no_longer_in_flight(answer: Exception) -> None:
    ledger = Ledger()
    settings = {"auth": {"inference_keys": INFERENCE, "default_limits": {"concurrent_requests": 1}}}
    guarded = guard(Application(answer), ledger, **settings, max_concurrent_requests=1)
    for _ in range(3):
        ask(guarded, x_api_key=INFERENCE)
    assert ledger.total("inference-1").in_flight == 0


def test_more_requests_than_allowed_at_once_are_429_and_health_still_answers() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        app = Application(gate)
        guarded = guard(app, max_concurrent_requests=2)
        first = [asyncio.ensure_future(send(guarded, "POST", PATHS[0], [])) for _ in range(2)]
        await until(lambda: len(app.scopes) == 2)
        refused = await send(guarded, "POST", PATHS[0], [])
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
        health = asyncio.ensure_future(send(guarded, "GET", "/health", []))
        await until(lambda: len(app.scopes) == 3)
        gate.set()
        assert [response.status_code for response in await asyncio.gather(*first, health)] == [200] * 3

    run(main())


def test_what_nobody_foresaw_is_a_fixed_text() -> None:
    response = ask(guard(Application(ValueError("secret"))))
    assert response.status_code == 500
    assert "secret" not in response.text


def test_untrusted_headers_stay_outside() -> None:
    app = Application()
    given = {"x_forwarded_for": "1.2.3.4", "x_request_timeout_seconds": "-1", "forwarded": "for=a", "x_real_ip": "1"}
    ask(guard(app), **given, accept="application/json")
    names = {name for name, _ in app.scopes[0]["headers"]}
    assert b"accept" in names
    assert not names & {name.replace("_", "-").encode() for name in given}


def test_a_client_that_asked_not_to_be_watched_is_watched() -> None:
    async def main() -> None:
        app, left = Application(asyncio.Event()), asyncio.Event()

        async def receive() -> Message:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send_(message: Message) -> None:
            raise AssertionError("nothing is answered to a client that has left")

        headers = [(b"x-request-disconnect-disabled", b"?1")]
        scope = {"type": "http", "path": PATHS[0], "method": "POST", "headers": headers}
        serving = asyncio.ensure_future(serve(guard(app), scope, receive, send_))
        await until(lambda: bool(app.scopes))
        left.set()
        await serving
        await settle()
        assert app.is_cancelled

    run(main())


def test_every_answer_has_the_security_headers() -> None:
    for response in (ask(guard(Application())), ask(guard(Application()), "/nowhere")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in response.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("origin", "allowed", "status"),
    [
        ("http://localhost:3000", [], 200),
        ("http://127.0.0.1", [], 200),
        ("http://[::1]:8000", [], 200),
        ("https://evil.example", [], 403),
        ("https://localhost.evil.example", [], 403),
        ("null", [], 403),
        ("http://[::1", [], 403),
        ("https://app.example", ["https://app.example"], 200),
        ("https://app.example:444", ["https://app.example"], 403),
        ("https://anything.example", ["*"], 200),
    ],
)
def test_pages_that_may_use_a_server_without_keys(origin: str, allowed: list[str], status: int) -> None:
    response = ask(guard(Application(), auth={"allowed_origins": allowed}), origin=origin)
    assert response.status_code == status


def test_pages_need_a_key_where_there_are_keys() -> None:
    app = guard(Application(), **WITH_KEYS)
    assert ask(app, origin="https://evil.example").status_code == 401
    answered = ask(app, origin="https://evil.example", x_api_key=INFERENCE)
    assert "access-control-allow-origin" not in answered.headers


@pytest.mark.parametrize("allowed", [["https://app.example"], ["*"]])
def test_cors_is_for_allowed_pages_and_never_with_credentials(allowed: list[str]) -> None:
    settings: dict[str, Any] = {"auth": {**WITH_KEYS["auth"], "allowed_origins": allowed}}
    asked = {"origin": "https://app.example", "access_control_request_method": "POST"}
    preflight = ask(guard(Application(), **settings), method="OPTIONS", **asked)
    answer = ask(guard(Application(), **settings), origin="https://app.example", x_api_key=INFERENCE)
    refused = ask(guard(Application(), **settings), origin="https://app.example")
    for response in (preflight, answer, refused):
        assert response.headers["access-control-allow-origin"] in ("https://app.example", "*")
        assert "access-control-allow-credentials" not in response.headers
    assert (preflight.status_code, answer.status_code, refused.status_code) == (200, 200, 401)
    assert "x-request-id" in answer.headers["access-control-expose-headers"]


def test_errors_have_the_shape_of_their_family() -> None:
    full = guard(Application(OverloadedError("full")), **WITH_KEYS)
    assert ask(full, "/api/v1/x", x_api_key=MANAGEMENT).json() == {"error": "overloaded_error", "details": "full"}
    assert ask(full, "/api/x", x_api_key=INFERENCE).json() == {"detail": "full"}
    assert json.loads(ask(full, x_api_key=INFERENCE).text)["error"]["type"] == "overloaded_error"
