"""Bad input over HTTP, for each tier to send to its own server: `tests/bad_requests.py`, and what is not even HTTP."""

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.bad_requests import ASK, CHAT, BadRequest
from tests.harness import Server

DEADLINE_S = 20
"""For a busy machine; what it takes on an idle one is far less."""
BODY_S = 2.0
"""The gateway's deadline for a body, in every tier that runs these."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def exchange(server: Server, request: BadRequest, model: str) -> Answer:
    """Send a request as it is written: nothing normalises its path, nobody refuses its headers on this side."""
    connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=DEADLINE_S)
    headers = {"content-type": "application/json", **{k: v.decode("latin-1") for k, v in request.headers.items()}}
    try:
        connection.request(
            request.method,
            request.path.replace("MODEL", model),
            request.body.replace(b"MODEL", model.encode()),
            headers,
        )
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def send_raw(server: Server, data: bytes) -> bytes:
    """Send bytes over a connection of their own, and return all that comes back until the server closes it."""
    address = urlsplit(server.base_url)
    with socket.create_connection((str(address.hostname), int(address.port or 80)), timeout=DEADLINE_S) as client:
        client.sendall(data)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
            if b"\r\n\r\n" in received and b"connection: close" not in data.lower():
                break
    return received


def assert_serves(server: Server, model: str) -> None:
    """Check that a normal request passes."""
    body = {"model": model, "messages": ASK, "max_tokens": 1}
    response = server.http.post(CHAT, json=body, timeout=DEADLINE_S)
    assert response.status_code == 200, response.text


def assert_refused_and_well(server: Server, model: str, request: BadRequest) -> None:
    """Check that a bad request gets its status, in its family's shape, and that a normal one passes right after."""
    assert_refused(request, exchange(server, request, model))
    assert_serves(server, model)


def assert_refused(request: BadRequest, answer: Answer) -> None:
    assert answer.status == request.status, answer.body[:500]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body: dict[str, Any] = json.loads(answer.body)
    message = body["detail"] if "detail" in body else body["details"] if "details" in body else body["error"]["message"]
    assert message
    assert len(answer.body) < 20_000, "the answer repeats what was sent"


REQUEST = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"

NOT_HTTP = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
    "no version": b"GET\r\n\r\n",
    "unknown version": b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n",
    "space in the path": b"GET /v1/ models HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "NUL in the path": b"GET /v1/\x00models HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "NUL in a header": b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-a: a\x00b\r\n\r\n",
    "header without a colon": b"GET /v1/models HTTP/1.1\r\nhost x\r\n\r\n",
    "space before a header's colon": b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-a : b\r\n\r\n",
    "two lengths": REQUEST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
    "negative length": REQUEST + b"content-length: -2\r\n\r\n{}",
    "length in words": REQUEST + b"content-length: two\r\n\r\n{}",
    "bad chunk size": REQUEST + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "unknown transfer encoding": REQUEST + b"transfer-encoding: smuggled\r\n\r\n{}",
    "100 kB header": b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-a: " + b"a" * 100_000 + b"\r\n\r\n",
    "100 kB path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "500 headers": b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n" + b"x-a: b\r\n" * 500 + b"\r\n",
    "body of 100 MB, declared": REQUEST + b"content-length: 104857600\r\n\r\n",
    "body that stops half-way": REQUEST + b"content-length: 100\r\n\r\n{",
    "chunked body that stops half-way": REQUEST + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
}

ODD_HEADERS = {
    "x-request-id": b"\xff\xfe",
    "X-Request-Id": b"a" * 2000,
    "x-request-disconnect-disabled": b"\xff",
    "x-request-timeout-seconds": b"\xff",
    "X-Request-Timeout-Seconds": b"0.000001",
    "serve_multiplexed_model_id": b"\xff",
    "x-session-id": b"\xff",
    "traceparent": b"\xff",
    "authorization": b"Bearer \xff",
    "x-api-key": b"\xff" * 1000,
    "accept-encoding": b"\xff",
    "x-forwarded-for": b"127.0.0.1",
    "cookie": b"a=\xff",
    "expect": b"100-continue",
}
"""Headers that change nothing: the request is answered as without them."""


class HttpCases:
    """Each test takes the fixtures `server` and `model` of the tier that inherits it."""

    @pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP)
    def test_bad_http_is_refused_and_the_next_one_passes(self, server: Server, model: str, data: bytes) -> None:
        answer = send_raw(server, data)
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:300]
        assert_serves(server, model)

    @pytest.mark.parametrize("name", ODD_HEADERS)
    def test_odd_header_changes_nothing(self, server: Server, model: str, name: str) -> None:
        body = json.dumps({"model": model, "messages": ASK, "max_tokens": 1}).encode()
        request = BadRequest(name, CHAT, body, headers={name: ODD_HEADERS[name]})
        answer = exchange(server, request, model)
        assert answer.status == 200, answer.body[:300]
        assert answer.headers["x-request-id"] != ODD_HEADERS[name].decode("latin-1")

    def test_clients_that_leave_half_way_do_no_harm(self, server: Server, model: str) -> None:
        address = urlsplit(server.base_url)
        for _ in range(50):
            with socket.create_connection((str(address.hostname), int(address.port or 80))) as client:
                client.sendall(REQUEST + b"content-length: 100\r\n\r\n{")
        assert_serves(server, model)
