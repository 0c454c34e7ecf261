"""A streaming HTTP client on gevent: what a user of a chat sees, and when."""

import json
import time
from http.client import HTTPException
from typing import Any

import gevent
from geventhttpclient import HTTPClient
from geventhttpclient.url import URL

from loadtests.load.events import Outcome, code_of, completion_tokens, read_events, text_of

BLOCK_BYTES = 64 * 1024


class Client:
    """One user's connection, kept alive. Any OpenAI-compatible server.

    base_url: with or without the `/v1` at its end. timeout_s: for a whole request, its last byte included.
    """

    def __init__(self, base_url: str, key: str, timeout_s: float) -> None:
        self._url = URL(base_url)
        self._prefix = self._url.path.rstrip("/").removesuffix("/v1")
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        self._timeout_s = timeout_s
        self._http = self._connect()

    def close(self) -> None:
        self._http.close()

    def send(self, method: str, path: str, body: dict[str, Any] | None = None, keeps_text: bool = False) -> Outcome:
        """Send a request and read its answer; an error is an Outcome, too."""
        outcome = Outcome()
        data = json.dumps(body).encode() if body is not None else b""
        begin_s = time.perf_counter()
        deadline = gevent.Timeout(self._timeout_s)
        try:
            with deadline:
                self._exchange(method, self._prefix + path, data, outcome, begin_s, keeps_text)
        except gevent.Timeout as timeout:
            if timeout is not deadline:
                raise
            outcome.error = "timeout: unfinished" if outcome.status else "timeout: no answer"
        except (OSError, HTTPException) as error:
            outcome.error = "stream: cut short" if outcome.status else f"connection: {type(error).__name__}"
        outcome.e2e_s = time.perf_counter() - begin_s
        if outcome.error:
            self._http.close()  # what is left of the answer, or a request half sent, must not meet the next one
            self._http = self._connect()
        return outcome

    def _exchange(
        self, method: str, path: str, data: bytes, outcome: Outcome, begin_s: float, keeps_text: bool
    ) -> None:
        with self._http.request(method, path, data, self._headers) as response:
            outcome.status = response.status_code
            outcome.retry_after_s = seconds(response.get("retry-after"))
            if "text/event-stream" in (response.get("content-type") or ""):
                lines = read_events(response, outcome, begin_s)
                outcome.text = text_of(lines) if keeps_text else ""
            else:
                outcome.body = bytes(response.read())
                outcome.num_tokens = completion_tokens(outcome.body)
        if not outcome.error and outcome.status >= 400:
            outcome.error = f"HTTP {outcome.status} {code_of(outcome.body)}".strip()

    def _connect(self) -> Any:
        """Make what connects at the first request. The deadline of a request bounds all of it: no time limits here."""
        return HTTPClient(
            self._url.host,
            self._url.port,
            ssl=self._url.scheme == "https",
            network_timeout=None,
            connection_timeout=None,
            block_size=BLOCK_BYTES,
        )


def seconds(header: Any) -> float | None:
    """Read `Retry-After`; None: absent, or a date."""
    try:
        return float(header)
    except (TypeError, ValueError):
        return None
