"""The engine of this very process as what answers requests: no handle between."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from deployments.errors import EngineUnavailableError, InternalError, ServingError
from deployments.haproxy_models import RETRY_STATUS
from deployments.types import Accepted, EngineStats, HttpHead, HttpRequest, ModelInfo, Usage

logger = logging.getLogger("ray.serve")

Items = AsyncGenerator[Accepted | HttpHead | bytes | Usage, None]


class LocalResponse:
    """A response that has begun; see `ingress.services.Response`."""

    def __init__(self, head: HttpHead, items: Items, accepted_s: float) -> None:
        self.head = head
        self.accepted_s = accepted_s
        self.usage: Usage | None = None
        self._items = items

    def __aiter__(self) -> "LocalResponse":
        return self

    async def __anext__(self) -> bytes:
        try:
            item = await anext(self._items)
        except StopAsyncIteration:
            raise
        except Exception as error:
            raise as_serving_error(error) from error
        if isinstance(item, Usage):
            self.usage = item
            raise StopAsyncIteration
        assert isinstance(item, bytes)
        return item

    def cancel(self) -> None:
        close(self._items)


class LocalEngine:
    """An `ingress.services.Engine` in this process. `stream_http` is EngineReplica's."""

    def __init__(
        self,
        stream_http: Callable[[HttpRequest], Items],
        probe: Callable[[], Awaitable[float]],
        stats: Callable[[], Awaitable[EngineStats]],
    ) -> None:
        self._stream_http = stream_http
        self._probe = probe
        self._stats = stats

    async def open(self, request: HttpRequest) -> LocalResponse:
        """Have the engine begin to answer, and wait for the response's head.

        Raises ServingError, an EngineLostError among them when another replica should be asked.
        """
        items = self._stream_http(request)
        try:
            await anext(items)
            accepted_s = monotonic()
            head = await anext(items)
        except BaseException as error:
            close(items)
            if isinstance(error, EngineUnavailableError):
                raise EngineLostError(error.message, error.param, error.retry_after_s) from error
            if isinstance(error, Exception):
                raise as_serving_error(error) from error
            raise
        assert isinstance(head, HttpHead)
        return LocalResponse(head, items, accepted_s)

    async def probe(self) -> float:
        return await self._probe()

    async def loads(self) -> tuple[EngineStats, ...]:
        return (await self._stats(),)


@dataclass(frozen=True)
class LocalModel:
    """The model of this process, as those see it who answer requests."""

    client: LocalEngine
    info: ModelInfo
    status: str = "running"
    message: str = ""
    is_callable: bool = True

    @property
    def name(self) -> str:
        return self.info.name

    def models(self) -> dict[str, "LocalModel"]:
        """Return all the models there are here."""
        return {self.name: self}


class EngineLostError(EngineUnavailableError):
    """No byte was sent: HAProxy asks the next replica, and writes 503 when there is none."""

    status = RETRY_STATUS


_closing: set[asyncio.Task[None]] = set()


def close(items: Items) -> None:
    """Have a generator end without waiting for it; what it raises then concerns nobody."""
    task = asyncio.ensure_future(items.aclose())
    _closing.add(task)  # or the event loop would forget it
    task.add_done_callback(forget)


def forget(task: asyncio.Task[None]) -> None:
    _closing.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("the end of a request failed: %r", error)


def as_serving_error(error: Exception) -> ServingError:
    if isinstance(error, ServingError):
        return error
    logger.error("the engine failed", exc_info=error)
    return InternalError()
