"""Streams of tokens from any source, and when each token came; an HTTP client that costs as little as Python can."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple, cast

PATH = "/v1/chat/completions"
TEMPERATURE = 0.7
TOKEN = re.compile(rb'\{"content": ?"')
"""Begins the delta of a token, also of one without a text; a chat's first delta has the role before it."""
OVERLAP_BYTES = 16
"""As long as what begins a token, or longer: it may come in two pieces."""
DONE = b"data: [DONE]"
LAST_CHUNK = b"0\r\n\r\n"
CLOSE = b"\r\nconnection: close\r\n"
ERROR = b'data: {"error"'
END_BYTES = 64
"""Within so many bytes, DONE and LAST_CHUNK end an answer."""

Source = Callable[[int, int, list[float]], Awaitable[None]]
"""Given a request's number and how many tokens it asks for: appends when each one came, by `perf_counter`."""


class Load(NamedTuple):
    """Closed: so many streams at a time, each begun when another has ended."""

    streams: int
    requests: int
    tokens: int


@dataclass(slots=True)
class Timings:
    """What a load has brought. Times in seconds."""

    elapsed_s: float = 0.0
    num_tokens: int = 0
    ttft_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    """Between a delta and the next one of its stream; 0 between those that came at once."""

    def add(self, begin_s: float, times_s: Sequence[float], num_tokens: int) -> None:
        """Add a request: when it was sent, when each of its deltas came, and how many tokens it had."""
        self.num_tokens += num_tokens
        self.ttft_s += [time_s - begin_s for time_s in times_s[:1]]
        self.gaps_s += [later - earlier for earlier, later in pairwise(times_s)]

    def to_json(self) -> str:
        return json.dumps(asdict(self))


async def measure(source: Source, load: Load) -> Timings:
    """Put a load on a source; raises an ExceptionGroup of RuntimeErrors when requests fail."""
    timings, numbers = Timings(), iter(range(load.requests))

    async def user() -> None:
        for number in numbers:
            begin_s, times_s = time.perf_counter(), list[float]()
            await source(number, load.tokens, times_s)
            if not 0 < len(times_s) <= load.tokens:  # the engine joins tokens whose reader is late
                raise RuntimeError(f"request {number} brought {len(times_s)} deltas for {load.tokens} tokens")
            timings.add(begin_s, times_s, load.tokens)

    begin_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(load.streams):
            group.create_task(user())
    timings.elapsed_s = time.perf_counter() - begin_s
    return timings


def chat_body(model: str, number: int, tokens: int) -> dict[str, Any]:
    """Make a chat of exactly so many tokens, another one for each number."""
    messages = [{"role": "user", "content": f"Tell me story number {number} about a fox."}]
    body = {"model": model, "messages": messages, "max_tokens": tokens, "temperature": TEMPERATURE}
    return body | {"stream": True, "ignore_eos": True}


class TokenCounter:
    """Counts the tokens in a stream's pieces, wherever it was cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> int:
        """Return how many tokens begin in this piece; raises RuntimeError for an error event."""
        data = self._rest + piece
        if ERROR in data:
            raise RuntimeError(data[data.index(ERROR) :][:300].decode(errors="replace"))
        count = end = 0
        for match in TOKEN.finditer(data):
            count, end = count + 1, match.end()
        self._rest = data[max(end, len(data) - OVERLAP_BYTES) :]
        return count


async def note_tokens(pieces: AsyncIterable[Any], times_s: list[float]) -> None:
    """Read a body, in bytes, to its end and append the time of each token."""
    counter = TokenCounter()
    async for piece in pieces:
        if count := counter.feed(piece):
            times_s += [time.perf_counter()] * count


class Connection(asyncio.Protocol):
    """An HTTP connection, kept alive, for one streamed answer at a time; all is done where the bytes arrive."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[None] | None = None
        self._times_s: list[float] = []
        self._counter = TokenCounter()
        self._end = b""
        self.is_kept = True
        """The server has not said that it will close it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is not derived from it

    def data_received(self, data: bytes) -> None:
        if not self._end:
            if not data.startswith(b"HTTP/1.1 200"):
                self._finish(RuntimeError(data[:300].decode(errors="replace")))
                return
            self.is_kept = CLOSE not in data.lower()
        try:
            count = self._counter.feed(data)
        except RuntimeError as error:
            self._finish(error)
            return
        if count:
            self._times_s += [time.perf_counter()] * count
        self._end = (self._end + data)[-END_BYTES:]
        if self._end.endswith(LAST_CHUNK) and DONE in self._end:
            self._finish(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(error or ConnectionError("the server closed the connection"))

    def _finish(self, error: Exception | None) -> None:
        if self._answer is None or self._answer.done():
            return
        if error is None:
            self._answer.set_result(None)
        else:
            self._answer.set_exception(error)

    async def ask(self, request: bytes, times_s: list[float]) -> None:
        """Send a request and append the times of its tokens; raises RuntimeError for another status than 200."""
        self._times_s, self._counter, self._end = times_s, TokenCounter(), b""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        await self._answer


class HttpSource:
    """Streamed chats over HTTP, as a Source; connections are kept. Only for servers that answer in chunks."""

    def __init__(self, host: str, port: int, model: str) -> None:
        self._host, self._port = host, port
        self._model = model
        self._idle: list[Connection] = []

    async def __call__(self, number: int, tokens: int, times_s: list[float]) -> None:
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            await connection.ask(self._request(number, tokens), times_s)
        except BaseException:
            connection.transport.close()
            raise
        if connection.is_kept:
            self._idle.append(connection)
        else:  # HAProxy was reloaded meanwhile
            connection.transport.close()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self._host, self._port)
        return connection

    def _request(self, number: int, tokens: int) -> bytes:
        body = json.dumps(chat_body(self._model, number, tokens)).encode()
        head = f"POST {PATH} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def close(self) -> None:
        for connection in self._idle:
            connection.transport.close()
        self._idle.clear()
