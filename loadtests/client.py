"""A streaming HTTP client on gevent: what a user of a chat sees, and when."""

import json
import time
from typing import Any

import gevent
from geventhttpclient import HTTPClient
from geventhttpclient.url import URL

from loadtests.events import Outcome, code_of, completion_tokens, read_events, text_of

BLOCK_BYTES = 64 * 1024


class Client:
    """One user's connection, kept alive. Any OpenAI-compatible server."""

    def __init__(self, base_url: str, key: str, timeout_s: float) -> None:
        url = URL(base_url)
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._http = HTTPClient(
            url.host,
            url.port,
            ssl=url.scheme == "https",
            network_timeout=timeout_s,
            connection_timeout=timeout_s,
            block_size=BLOCK_BYTES,
        )

    def close(self) -> None:
        self._http.close()

    def send(self, method: str, path: str, body: dict[str, Any] | None = None, keeps_text: bool = False) -> Outcome:
        """Send a request and read its answer; an error is an Outcome, too."""
        outcome = Outcome()
        begin_s = time.perf_counter()
        try:
            data = json.dumps(body).encode() if body is not None else b""
            response = self._http.request(method, path, data, self._headers)
            outcome.status = response.status_code
            if "text/event-stream" in (response.get("content-type") or ""):
                lines = read_events(response, outcome, begin_s)
                outcome.text = text_of(lines) if keeps_text else ""
            else:
                outcome.body = bytes(response.read())
                outcome.num_tokens = completion_tokens(outcome.body)
            if not outcome.error and outcome.status >= 400:
                outcome.error = f"HTTP {outcome.status} {code_of(outcome.body)}".strip()
        except (OSError, gevent.Timeout, ValueError) as error:
            outcome.error = f"connection: {type(error).__name__}"
        outcome.e2e_s = time.perf_counter() - begin_s
        return outcome
