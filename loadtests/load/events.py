"""What a request has brought, and reading it off a stream of server-sent events. Plain Python: gevent stays outside."""

import json
import re
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

DATA = b"data:"
LAST = re.compile(rb'^data: ?\[DONE\]|"type": ?"(?:response\.(?:completed|incomplete)|message_stop)"')
"""How a stream of each API ends."""
TEXT = re.compile(rb'"(?:content|text|arguments|delta|reasoning|reasoning_content)": ?"[^"]')
"""Where the APIs put what they generate; one that is empty is no token."""


class Lines(Protocol):
    def readline(self, sep: bytes) -> bytes:
        """Return the next line with its end, b"" after the last one."""


@dataclass(slots=True)
class Outcome:
    """One request, from its first byte sent to its last byte received. Times in seconds."""

    e2e_s: float = 0.0
    status: int = 0
    error: str = ""
    """The kind of error; "": none."""
    ttft_s: float | None = None
    """Until the first generated text; None: it was not streamed, or there was none."""
    gaps_s: list[float] = field(default_factory=list)
    """Between two chunks with text. Of chunks that were read at once, as the user saw them, all but the first are 0."""
    num_tokens: int = 0
    """As the server says, else chunks with text."""
    body: bytes = b""
    """Of what was not streamed."""
    text: str = ""
    """Of a streamed chat, when it was asked for."""
    retry_after_s: float | None = None
    """When to come back, as the server says."""


def read_events(response: Lines, outcome: Outcome, begin_s: float) -> list[bytes]:
    """Read a stream to its end and return its events. Error events are errors; so is an end without the last event."""
    lines: list[bytes] = []
    last_s: float | None = None
    while line := bytes(response.readline(b"\n")):
        if not line.startswith(DATA):
            continue
        now_s = time.perf_counter()
        lines.append(line)
        if b'"error"' in line and (kind := error_of(line)):
            outcome.error = f"event: {kind}"
            return lines
        if has_text(line):
            outcome.num_tokens += 1
            if last_s is None:
                outcome.ttft_s = now_s - begin_s
            else:
                outcome.gaps_s.append(now_s - last_s)
            last_s = now_s
        elif b'"usage"' in line:
            outcome.num_tokens = completion_tokens(line[len(DATA) :]) or outcome.num_tokens
    if not lines or not LAST.search(lines[-1]):
        outcome.error = "stream: cut short"
    return lines


def text_of(lines: list[bytes]) -> str:
    """Join the text of a chat's events."""
    events = [json.loads(line[len(DATA) :]) for line in lines if has_text(line)]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events)


def has_text(line: bytes) -> bool:
    return TEXT.search(line) is not None


def error_of(line: bytes) -> str:
    """Return the kind of an error event, "" when it is none: a model may write the word, too."""
    try:
        event = json.loads(line[len(DATA) :])
    except ValueError:
        return ""
    if not isinstance(event, dict):
        return ""
    if event.get("error"):
        return kind_of(event["error"])
    return kind_of(event) if event.get("type") == "error" else ""


def kind_of(error: Any) -> str:
    """Return what an error object says is wrong, in a word. vLLM's `code` is the status again, so `type` says more."""
    if not isinstance(error, dict):
        return str(error)[:40]
    code = error.get("code")
    return str(code if isinstance(code, str) and code else error.get("type") or code or "unknown")


def completion_tokens(body: bytes) -> int:
    try:
        usage = json.loads(body)["usage"]
        return int(usage.get("completion_tokens") or usage.get("output_tokens") or 0)
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0


def code_of(body: bytes) -> str:
    """Return what an error's body says is wrong, in a word."""
    try:
        answer = json.loads(body)
        return kind_of(answer.get("error") or answer.get("detail", ""))
    except (ValueError, AttributeError):
        return ""
