"""Faults that both engines must survive in the same way; see `tests/cases.py`."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.harness import Server, eventually

MESSAGES = [{"role": "user", "content": "Tell me a story about a fox."}]
ENDLESS: dict[str, Any] = {"messages": MESSAGES, "ignore_eos": True, "max_tokens": 3500, "n": 10}
"""Runs for far more than ABORT_TIMEOUT_S on either engine: only an abort can end it within a test's deadline."""
ABORT_TIMEOUT_S = 8


@contextmanager
def open_stream(server: Server, model: str) -> Iterator[httpx.Response]:
    body = {**ENDLESS, "model": model, "stream": True}
    with server.http.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, response.read()
        yield response


def leave_after(server: Server, model: str, timeout_s: float) -> None:
    """Send a plain request and give up."""
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.base_url}/v1/chat/completions", json={**ENDLESS, "model": model}, timeout=timeout_s)


def is_idle(server: Server, model: str) -> bool:
    stats = server.stats(f"model-{model}")
    return (stats.num_running, stats.num_waiting, stats.kv_cache_usage) == (0, 0, 0.0)


def is_busy(server: Server, model: str) -> bool:
    return server.stats(f"model-{model}").num_running > 0


class FaultCases:
    """Each test takes the fixtures `server` and `slow_model`: one whose long answers last for seconds."""

    def test_leaving_a_stream_aborts_it_in_the_engine(self, server: Server, slow_model: str) -> None:
        with open_stream(server, slow_model) as response:
            lines = response.iter_lines()  # held: a dropped iterator closes the connection
            next(lines)
            eventually(lambda: is_busy(server, slow_model), "the engine runs the stream")
        eventually(lambda: is_idle(server, slow_model), "the engine is idle after the client left", ABORT_TIMEOUT_S)

    def test_leaving_a_plain_request_aborts_it_in_the_engine(self, server: Server, slow_model: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            leaving = pool.submit(leave_after, server, slow_model, 2.0)
            eventually(lambda: is_busy(server, slow_model), "the engine runs the request")
            leaving.result()
        eventually(lambda: is_idle(server, slow_model), "the engine is idle after the client left", ABORT_TIMEOUT_S)

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_header_that_tells_serve_not_to_look_has_no_effect(
        self, server: Server, slow_model: str, stream: bool
    ) -> None:
        """With it Serve does not notice that a client leaves; HAProxy's rules drop it, and so does our middleware."""
        body = json.dumps({**ENDLESS, "model": slow_model, "stream": stream}).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-request-disconnect-disabled: ?1\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        address = urlsplit(server.base_url)
        with socket.create_connection((str(address.hostname), int(address.port or 80))) as client:
            client.sendall(head.encode() + body)
            eventually(lambda: is_busy(server, slow_model), "the engine runs the request")
        eventually(lambda: is_idle(server, slow_model), "the engine is idle after the client left", ABORT_TIMEOUT_S)


def has_failed(lines: Iterator[str]) -> bool:
    """Read a stream to its end, and say whether that was one on which a client raises; a cut stream is never whole."""
    rest: list[str] = []
    try:
        rest.extend(lines)
    except httpx.RemoteProtocolError:  # the connection broke: who would have written an event was killed
        return "data: [DONE]" not in rest
    return bool(read_errors("\n".join(rest))) and "data: [DONE]" not in rest


def read_errors(text: str) -> list[Any]:
    """Return the error objects among a stream's events."""
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return [event["error"] for event in map(json.loads, events) if "error" in event]
