"""The policy in front of a bare ASGI application: no FastAPI, no graph."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from config.auth import Key, digest
from config.models import GatewaySettings
from deployments.errors import OverloadedError
from deployments.ingress.middleware.key_ring import KeyRing
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


def guard(app: ASGIApp, ledger: Ledger | None = None, ring: Any = None, **settings: Any) -> ASGIApp:
    stack = make_stack(GatewaySettings.model_validate(settings), ledger or Ledger(), PATHS, PREFIXES, ring=ring)
    for cls, args, kwargs in reversed(stack):
        app = cls(app, *args, **kwargs)
    return app


WITH_KEYS: dict[str, Any] = {"auth": {"inference_keys": INFERENCE, "management_keys": MANAGEMENT}}


async def send(app: ASGIApp, method: str, path: str, headers: list[tuple[str, str]]) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
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


def test_what_a_request_cost_counts_when_its_client_leaves_and_asked_not_to_be_watched() -> None:
    """Serve does not cancel such a request: what it leaves behind at its end must still be counted."""

    class Expensive(Application):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.scopes.append(scope)
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                scope["state"]["tokens"] = 7

    async def main() -> None:
        app, left, ledger = Expensive(), asyncio.Event(), Ledger(lambda: 600.0)

        async def receive() -> Message:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send_(message: Message) -> None:
            raise AssertionError("nothing is answered to a client that has left")

        settings = {"auth": {"inference_keys": INFERENCE, "default_limits": {"tokens_per_minute": 10}}}
        headers = [(b"x-request-disconnect-disabled", b"?1"), (b"x-api-key", INFERENCE.encode())]
        scope = {"type": "http", "path": PATHS[0], "method": "POST", "headers": headers}
        serving = asyncio.ensure_future(serve(guard(app, ledger, **settings), scope, receive, send_))
        await until(lambda: bool(app.scopes))
        left.set()
        await serving
        assert ledger.tokens("inference-1", 10).remaining == 3
        assert ledger.total("inference-1").in_flight == 0

    run(main())


def test_a_request_that_is_cancelled_frees_its_place_and_is_no_longer_in_flight() -> None:
    async def main() -> None:
        ledger, gate = Ledger(), asyncio.Event()
        settings = {"auth": {"inference_keys": INFERENCE, "default_limits": {"concurrent_requests": 1}}}
        guarded = guard(Application(gate), ledger, **settings, max_concurrent_requests=1)
        for _ in range(2):
            asking = asyncio.ensure_future(send(guarded, "POST", PATHS[0], [("x-api-key", INFERENCE)]))
            await until(lambda: ledger.total("inference-1").in_flight == 1)
            await settle()
            asking.cancel()
            await asyncio.wait({asking})
            assert ledger.total("inference-1").in_flight == 0
        gate.set()
        assert (await send(guarded, "POST", PATHS[0], [("x-api-key", INFERENCE)])).status_code == 200

    run(main())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("authorization", f"Bearer {INFERENCE}"), ("authorization", "Bearer wrong")], 200),
        ([("authorization", "Bearer wrong"), ("authorization", f"Bearer {INFERENCE}")], 401),
        ([("authorization", "Basic eA=="), ("authorization", f"Bearer {INFERENCE}")], 200),
        ([("x-api-key", "wrong"), ("x-api-key", "")], 401),
        ([("authorization", f"Bearer\t{INFERENCE}")], 401),
        ([("authorization", f"Bearer {INFERENCE},{MANAGEMENT}")], 401),
        ([("x-api-key", "\xff" * 20)], 401),
        ([("x-api-key", "k" * 60_000)], 401),
    ],
)
def test_odd_and_doubled_headers_open_nothing_that_a_key_does_not(headers: list[tuple[str, str]], status: int) -> None:
    guarded = guard(Application(), **WITH_KEYS)
    raw: Any = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    assert run(send(guarded, "POST", PATHS[0], raw)).status_code == status


@pytest.mark.parametrize("path", ["/api/v1/%69nstances", "/api%2fv1/instances", "/%61pi/v1/instances"])
def test_management_paths_in_disguise_need_a_management_key(path: str) -> None:
    assert ask(guard(Application(), **WITH_KEYS), path, x_api_key=INFERENCE).status_code == 403


def test_a_long_path_is_not_repeated_whole() -> None:
    assert len(ask(guard(Application()), "/" + "a" * 10_000).content) < 1000


def test_the_order_in_which_a_request_meets_the_policy() -> None:
    def names(**auth: Any) -> list[str]:
        stack = make_stack(GatewaySettings.model_validate({"auth": auth}), Ledger(), PATHS)
        return [getattr(middleware.cls, "__name__", "") for middleware in stack]

    outer = ["Observing", "RequestId", "SecurityHeaders"]
    inner = ["ApiKeys", "KeyLimiter", "Admission", "HeaderHygiene"]
    assert names() == [*outer, "CORSMiddleware", "Errors", "AllowList", "Origins", *inner]
    assert names(inference_keys=INFERENCE) == [*outer, "Errors", "AllowList", *inner]
    with_all = names(inference_keys=INFERENCE, allowed_origins=["*"])
    assert with_all == [*outer, "CORSMiddleware", "Errors", "AllowList", *inner]


def test_the_start_and_end_of_the_server_pass() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send_(message: Message) -> None:
        raise AssertionError

    run(serve(guard(app, **WITH_KEYS), {"type": "lifespan"}, receive, send_))
    assert seen == ["lifespan"]


def test_a_key_never_stands_in_an_error_or_the_log(caplog: pytest.LogCaptureFixture) -> None:
    limited: dict[str, Any] = {"auth": {"inference_keys": INFERENCE, "default_limits": {"requests_per_minute": 1}}}
    guarded = guard(Application(ValueError("x")), **limited)
    with caplog.at_level("DEBUG"):
        answers = [ask(guarded, x_api_key=key) for key in (INFERENCE, INFERENCE, INFERENCE + "x")]
    assert [answer.status_code for answer in answers] == [500, 429, 401]
    for text in (caplog.text, *(answer.text + str(answer.headers) for answer in answers)):
        assert INFERENCE not in text


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


def test_what_a_page_of_another_site_loads_without_a_script_is_refused() -> None:
    assert ask(guard(Application()), sec_fetch_site="cross-site").status_code == 403
    for site in ("same-origin", "none"):
        assert ask(guard(Application()), sec_fetch_site=site).status_code == 200
    app = guard(Application(), auth={"allowed_origins": ["https://app.example"]})
    assert ask(app, sec_fetch_site="cross-site", origin="https://app.example").status_code == 200


@pytest.mark.parametrize("settings", [{}, {"auth": {"allow_open": True}}, WITH_KEYS])
@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "evil.example", "127.evil.example"])
def test_a_page_that_renamed_itself_to_this_server_reads_nothing(host: str, settings: dict[str, Any]) -> None:
    is_local = "evil" not in host
    expected = 401 if settings is WITH_KEYS else 200 if is_local or settings else 403
    assert ask(guard(Application(), **settings), host=host).status_code == expected


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


@pytest.mark.parametrize("origin", ["http://localhost:5173", "https://127.0.0.1", "http://[::1]:80"])
def test_pages_of_this_machine_read_a_server_without_keys(origin: str) -> None:
    answer = ask(guard(Application()), origin=origin)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
    preflight = ask(guard(Application()), method="OPTIONS", origin=origin, access_control_request_method="POST")
    assert preflight.status_code == 200
    assert "access-control-allow-origin" not in ask(guard(Application(), **WITH_KEYS), origin=origin).headers


@pytest.mark.parametrize("origin", ["https://localhost.evil.example", "http://localhost:1@evil.example", "null"])
def test_other_pages_do_not(origin: str) -> None:
    assert "access-control-allow-origin" not in ask(guard(Application()), origin=origin).headers


def test_errors_have_the_shape_of_their_family() -> None:
    full = guard(Application(OverloadedError("full")), **WITH_KEYS)
    assert ask(full, "/api/v1/x", x_api_key=MANAGEMENT).json() == {"error": "overloaded_error", "details": "full"}
    assert ask(full, "/api/x", x_api_key=INFERENCE).json() == {"detail": "full"}
    assert json.loads(ask(full, x_api_key=INFERENCE).text)["error"]["type"] == "overloaded_error"


STORED, STORED_MANAGEMENT = "sk-stored-0123456789", "mgmt-stored-0123456789"


def stored_key(name: str, key: str, **fields: Any) -> Key:
    return Key(name=f"stored.{name}", sha256=digest(key), **fields)


def ring_of(now_s: float = 0.0, **auth: Any) -> KeyRing:
    return KeyRing(GatewaySettings.model_validate({"auth": auth or WITH_KEYS["auth"]}).auth, lambda: now_s)


def test_a_stored_key_opens_from_when_it_is_known_until_it_is_no_more() -> None:
    app, ring = Application(), ring_of()
    guarded = guard(app, ring=ring, **WITH_KEYS)
    assert ask(guarded, x_api_key=STORED).status_code == 401
    stored = stored_key("1", STORED)
    ring.learn([stored])
    assert ask(guarded, x_api_key=STORED).status_code == 200
    assert app.scopes[0]["state"]["key"] is stored
    assert ask(guarded, x_api_key=INFERENCE).status_code == 200
    ring.learn([stored_key("2", "sk-another-0123456789")])
    assert ask(guarded, x_api_key=STORED).status_code == 401
    ring.learn([])
    assert ask(guarded, x_api_key=INFERENCE).status_code == 200


@pytest.mark.parametrize(("key", "status"), [(STORED, 403), (STORED_MANAGEMENT, 200), (STORED[:-1], 401)])
def test_a_stored_key_manages_only_when_it_was_made_for_it(key: str, status: int) -> None:
    ring = ring_of()
    ring.learn([stored_key("1", STORED), stored_key("2", STORED_MANAGEMENT, kind="management")])
    assert ask(guard(Application(), ring=ring, **WITH_KEYS), "/api/v1/instances", x_api_key=key).status_code == status


@pytest.mark.parametrize(("now_s", "status"), [(99.9, 200), (100.0, 401), (1e12, 401)])
def test_a_key_ends_when_it_expires_whoever_still_lists_it(now_s: float, status: int) -> None:
    auth: dict[str, Any] = {"keys": [{"name": "a", "key": INFERENCE, "expires_at_s": 100}]}
    ring = ring_of(now_s, **auth)
    ring.learn([stored_key("1", STORED, expires_at_s=100)])
    guarded = guard(Application(), ring=ring, auth=auth)
    assert [ask(guarded, x_api_key=key).status_code for key in (INFERENCE, STORED)] == [status, status]
    assert ask(guarded).status_code == 401, "a server whose only key has expired is not open"


def test_a_stored_key_takes_nothing_from_a_configured_one() -> None:
    ring = ring_of()
    ring.learn([stored_key("1", INFERENCE, expires_at_s=0)])
    found = ring.find(INFERENCE.encode())
    assert found is not None
    assert found.name == "inference-1"


def test_stored_keys_do_not_close_an_open_server() -> None:
    """Else the last one that expires would open it again."""
    auth: dict[str, Any] = {"management_keys": MANAGEMENT}
    app, ring = Application(), ring_of(**auth)
    guarded = guard(app, ring=ring, auth=auth)
    stored = stored_key("1", STORED, instances={"demo"})
    ring.learn([stored])
    assert [ask(guarded).status_code, ask(guarded, x_api_key=STORED).status_code] == [200, 200]
    assert [scope["state"]["key"] for scope in app.scopes] == [None, stored]
    assert ask(guarded, "/api/v1/instances").status_code == 401


def test_a_stored_key_has_the_default_limits_and_its_own_count(caplog: pytest.LogCaptureFixture) -> None:
    auth: dict[str, Any] = {**WITH_KEYS["auth"], "default_limits": {"requests_per_minute": 1}}
    ring = ring_of(**auth)
    ring.learn([stored_key("1", STORED), stored_key("2", STORED_MANAGEMENT, kind="management")])
    guarded = guard(Application(), Ledger(lambda: 600.0), ring, auth=auth)
    asked = [INFERENCE, INFERENCE, STORED, STORED, STORED_MANAGEMENT, STORED_MANAGEMENT]
    with caplog.at_level("INFO"):
        statuses = [ask(guarded, x_api_key=key).status_code for key in asked]
    assert statuses == [200, 429, 200, 429, 200, 200]
    assert "key stored.1 is refused" in caplog.text


def test_a_key_that_is_revoked_while_it_is_used_ends_its_request_in_peace() -> None:
    async def main() -> None:
        auth: dict[str, Any] = {**WITH_KEYS["auth"], "default_limits": {"concurrent_requests": 1}}
        ring, ledger, gate = ring_of(**auth), Ledger(), asyncio.Event()
        ring.learn([stored_key("1", STORED)])
        guarded = guard(Application(gate), ledger, ring, auth=auth)
        first = asyncio.ensure_future(send(guarded, "POST", PATHS[0], [("x-api-key", STORED)]))
        await until(lambda: ledger.total("stored.1").in_flight == 1)
        ring.learn([])
        assert (await send(guarded, "POST", PATHS[0], [("x-api-key", STORED)])).status_code == 401
        gate.set()
        assert (await first).status_code == 200
        assert ledger.total("stored.1").in_flight == 0

    run(main())
