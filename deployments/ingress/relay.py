"""Forward an engine's response: bytes in, bytes out."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from types import TracebackType
from typing import TypeVar

from starlette.responses import Response as StarletteResponse
from starlette.types import Receive, Scope, Send

from config.limits import Deadlines
from deployments.errors import EngineUnavailableError, OverloadedError, ServingError
from deployments.ingress.budget import READ, Budget, budget_of
from deployments.ingress.pace import Pace
from deployments.ingress.services import Forwarded, Response, Upstream

logger = logging.getLogger("ray.serve")

HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"server", b"date"})
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
COMMENT = b": waiting for the model\n\n"
BUDGET = b"x-latency-budget"
TELL_BUDGET = (BUDGET, b"1")
BYTES_PER_TOKEN = 4
"""What a token of a prompt is taken for when nobody counted, because the client left or the engine died."""

RawHeaders = list[tuple[bytes, bytes]]
R = TypeVar("R", bound=Forwarded)


class Relay(StarletteResponse):
    """An engine's response as the ingress's own. Its chunks are never parsed, rebuilt or held back.

    Leaves the tokens that the request cost in `scope["state"]["tokens"]`, and where its time went in
    `scope["state"]["budget"]`; a client that sends `x-latency-budget: 1` is told that as well. Serve cancels this call
    when the client leaves, on either proxy; the engine's request is then aborted.
    """

    def __init__(self, upstream: Upstream[R], request: R, deadlines: Deadlines, is_stream: bool, model: str) -> None:
        self.open: Callable[[], Awaitable[Response]] = lambda: upstream.open(request)
        self.request: Forwarded = request
        self.deadlines = deadlines
        self.is_stream = is_stream
        self.model = model
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outlet = Outlet(send)
        budget = budget_of(scope)
        budget.mark(READ)
        scope["state"]["model"] = self.model
        try:
            async with Pace(self.deadlines, self.is_stream) as pace:
                await self._exchange(scope, outlet, pace, budget)
            budget.end()
        except ServingError as error:
            if isinstance(error, OverloadedError | EngineUnavailableError) and not outlet.has_begun:
                scope["state"]["tokens"] = 0  # no engine has worked for it
            if not outlet.is_event_stream:
                raise
            scope["state"]["error"] = error  # the status that was sent says nothing of it
            logger.warning("request %s broke off: %s", scope["state"].get("request_id"), error)
            # A client that does not read would hold this for ever.
            async with asyncio.timeout(self.deadlines.idle_s):
                await outlet.end(error_frame(error, self.request.path))

    async def _exchange(self, scope: Scope, outlet: "Outlet", pace: Pace, budget: Budget) -> None:
        upstream: Response | None = None
        tells_budget = TELL_BUDGET in scope["headers"]
        try:
            async with Heartbeat(outlet, self.deadlines.heartbeat_s, self.is_stream) as heart:
                # A plain answer has no head until it is complete: who leaves before has cost something, too.
                scope["state"]["tokens"] = self._estimate(0)
                upstream = await self.open()
                budget.reached(self.model if upstream.head.status == 200 else "", upstream.accepted_s)
                headers = relayed(upstream.head.headers)
                if outlet.has_begun and (upstream.head.status != 200 or not is_events(headers)):
                    await heart.stop()
                    await outlet.end(await refusal_frame(upstream, self.request.path))
                    return
                if tells_budget and not is_events(headers):
                    await answer_with_budget(upstream, headers, outlet, budget)
                    return
                await outlet.begin(upstream.head.status, headers)
                items = aiter(upstream)
                first = await anext(items, b"")
            pace.started()
            begun_s = monotonic()
            await outlet.write(first)
            async for chunk in items:
                await outlet.write(chunk)
                pace.moved()
            budget.answered(upstream.usage, monotonic() - begun_s, outlet.blocked_s)
            await outlet.end(b": latency-budget " + budget.report() + b"\n\n" if tells_budget else b"")
        finally:
            if upstream is not None:
                upstream.cancel()
                scope["state"]["tokens"] = self._cost(upstream, outlet.num_tokens)

    def _cost(self, upstream: Response, sent_tokens: int) -> int:
        if upstream.usage is not None:
            return upstream.usage.prompt_tokens + upstream.usage.completion_tokens
        return self._estimate(sent_tokens)

    def _estimate(self, sent_tokens: int) -> int:
        return len(self.request.body) // BYTES_PER_TOKEN + sent_tokens


class Outlet:
    """The client's side of a response."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False
        self.is_event_stream = False
        self._num_chunks = self._num_bytes = 0
        self._least_bytes = 0
        self.blocked_s = 0.0
        """How long the client made them wait."""

    @property
    def num_tokens(self) -> int:
        """Return about how many tokens the engine's chunks hold: at least one each.

        Under load several tokens share a chunk. The smallest one is taken for the size of what is around a text.
        """
        return max(self._num_chunks, (self._num_bytes - self._num_chunks * self._least_bytes) // BYTES_PER_TOKEN)

    async def begin(self, status: int, headers: RawHeaders) -> None:
        """Send the head; does nothing when it is sent already."""
        if self.has_begun:
            return
        self.has_begun = True
        self.is_event_stream = is_events(headers)
        headers = headers + STREAM_HEADERS if self.is_event_stream else headers
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, chunk: bytes) -> None:
        begun_s = monotonic()
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        self.blocked_s += monotonic() - begun_s
        size = len(chunk)
        self._least_bytes = min(size, self._least_bytes or size)
        self._num_bytes += size
        self._num_chunks += 1

    async def remark(self, comment: bytes) -> None:
        await self._send({"type": "http.response.body", "body": comment, "more_body": True})

    async def end(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": False})


class Heartbeat:
    """Sends comments while the block waits for a stream's first bytes, the first of them after `interval_s`.

    The official clients pass comments over, and what lies between does not take the connection for dead.
    """

    def __init__(self, outlet: Outlet, interval_s: float, is_wanted: bool) -> None:
        self._outlet = outlet
        self._interval_s = interval_s
        self._is_wanted = is_wanted
        self._beating: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> "Heartbeat":
        if self._is_wanted:
            # A timer, not a task: nearly every request is answered before it goes off.
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._beating is not None:
            self._beating.cancel()
            # Not `await`: suppressing its cancellation would swallow our own, too.
            await asyncio.wait({self._beating})
            self._beating = None

    def _start(self) -> None:
        self._beating = asyncio.ensure_future(self._beat())
        self._beating.add_done_callback(lambda task: task.cancelled() or task.exception())  # the relay fails as well

    async def _beat(self) -> None:
        await self._outlet.begin(200, [EVENT_STREAM])
        # Of an answer that has begun as something else, nothing may be said in between.
        while self._outlet.is_event_stream:
            await self._outlet.remark(COMMENT)
            await asyncio.sleep(self._interval_s)


async def answer_with_budget(upstream: Response, headers: RawHeaders, outlet: Outlet, budget: Budget) -> None:
    """Send an answer that is no stream with its budget in a header, for which all of it must be there."""
    body = b"".join([chunk async for chunk in upstream])
    budget.answered(upstream.usage)
    await outlet.begin(upstream.head.status, [*headers, (BUDGET, budget.report())])
    await outlet.end(body)


def relayed(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    return [pair for pair in headers if pair[0].lower() not in HOP_BY_HOP]


def is_events(headers: RawHeaders) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


async def refusal_frame(upstream: Response, path: str) -> bytes:
    """Write an answer that came when the stream had begun for want of one as the stream's last event."""
    body = b"".join([chunk async for chunk in upstream])
    return last_event(b" ".join(body.splitlines()), path)


def error_frame(error: ServingError, path: str) -> bytes:
    """Write an error as the last server-sent event of a stream; the official clients raise on it."""
    body = error.to_body()
    if is_messages(path):
        body = {"type": "error", **body}
    elif path.startswith("/api/"):
        body = {"detail": error.message}
    return last_event(json.dumps(body).encode(), path)


def last_event(data: bytes, path: str) -> bytes:
    # https://docs.anthropic.com/en/api/messages-streaming#error-events: their clients pass over events without a name.
    return (b"event: error\n" if is_messages(path) else b"") + b"data: " + data + b"\n\n"


def is_messages(path: str) -> bool:
    return path.startswith("/v1/messages")
