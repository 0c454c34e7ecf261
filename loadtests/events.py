"""What a request has brought, and reading it off a stream of server-sent events. Plain Python: gevent stays outside."""

import json
import time
from dataclasses import dataclass, field
from typing import Protocol

DATA = b"data:"
LAST = (b"[DONE]", b'"type":"response.completed"', b'"type":"message_stop"')
"""How a stream of each API ends."""
TEXT_KEYS = (b'"content":"', b'"text":"', b'"arguments":"', b'"delta":"')
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
    """Between two chunks with text."""
    num_tokens: int = 0
    """As the server says, else chunks with text."""
    body: bytes = b""
    """Of what was not streamed."""
    text: str = ""
    """Of a streamed chat, when it was asked for."""


def read_events(response: Lines, outcome: Outcome, begin_s: float) -> list[bytes]:
    """Read a stream to its end and return its events. Error events are errors; so is an end without the last event."""
    lines: list[bytes] = []
    last_s: float | None = None
    is_over = False
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
        is_over = is_over or any(mark in line for mark in LAST)
    if not is_over:
        outcome.error = "stream: cut short"
    return lines


def text_of(lines: list[bytes]) -> str:
    """Join the text of a chat's events."""
    events = [json.loads(line[len(DATA) :]) for line in lines if has_text(line)]
    return "".join(event["choices"][0]["delta"].get("content") or "" for event in events)


def has_text(line: bytes) -> bool:
    for key in TEXT_KEYS:
        place = line.find(key)
        if place >= 0 and line[place + len(key) : place + len(key) + 1] != b'"':
            return True
    return False


def error_of(line: bytes) -> str:
    """Return the kind of an error event, "" when it is none: a model may write the word, too."""
    try:
        event = json.loads(line[len(DATA) :])
    except ValueError:
        return ""
    error = event.get("error") if isinstance(event, dict) else None
    return str(error.get("code") or error.get("type")) if isinstance(error, dict) else ""


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
        error = answer.get("error", answer.get("detail", ""))
        return str(error.get("code") or error.get("type")) if isinstance(error, dict) else str(error)[:40]
    except (ValueError, AttributeError):
        return ""
