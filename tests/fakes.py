"""What the HTTP front needs of the graph, in process: engines with a script, and the product's own fake engine."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

from config.models import GatewaySettings, ModelSettings
from deployments.analysis_types import AnalysisRequest
from deployments.engine.asgi import stream_asgi
from deployments.engine.fake_backend import FakeBackend
from deployments.engine.metering import Meter, metered
from deployments.ingress.api import create_api
from deployments.ingress.services import Engine, Model, Response
from deployments.types import Headers, HttpHead, HttpRequest, ModelInfo, Usage
from tests.aio import leave, run

JSON: Headers = ((b"content-type", b"application/json"),)
EVENTS: Headers = ((b"content-type", b"text/event-stream; charset=utf-8"),)


class ScriptedResponse:
    """Gives the items in turn: bytes are chunks, an exception is raised, an event is waited for.

    `cost` is its usage, known at the end.
    """

    def __init__(
        self,
        items: Sequence[bytes | Exception | asyncio.Event],
        headers: Headers = JSON,
        status: int = 200,
        cost: Usage | None = None,
    ) -> None:
        self.head = HttpHead(status, headers)
        self.items = items
        self.cost = cost
        self.usage: Usage | None = None
        self.is_cancelled = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for item in self.items:
            if isinstance(item, Exception):
                raise item
            if isinstance(item, asyncio.Event):
                await item.wait()
            else:
                yield item
        self.usage = self.cost

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class ScriptedEngine:
    """Answers every request alike and remembers them."""

    answer: ScriptedResponse | Exception = field(default_factory=lambda: ScriptedResponse([b"{}"]))
    requests: list[HttpRequest] = field(default_factory=list)
    probe_s: float | Exception = 0.0
    """What a probe takes, or raises."""

    async def open(self, request: HttpRequest) -> Response:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def probe(self) -> float:
        if isinstance(self.probe_s, Exception):
            raise self.probe_s
        return self.probe_s


@dataclass
class ScriptedTokenizer:
    """Answers every question alike and remembers them."""

    answer: ScriptedResponse | Exception = field(default_factory=lambda: ScriptedResponse([b"{}"]))
    requests: list[AnalysisRequest] = field(default_factory=list)

    async def open(self, request: AnalysisRequest) -> Response:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class LocalResponse:
    """A response of an engine in this process."""

    def __init__(self, head: HttpHead, items: AsyncIterator[HttpHead | bytes], meter: Meter) -> None:
        self.head = head
        self.usage: Usage | None = None
        self._items = items
        self._meter = meter

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for item in self._items:
            assert isinstance(item, bytes)
            yield item
        self.usage = self._meter.total()

    def cancel(self) -> None:
        asyncio.ensure_future(leave(self._items))


class LocalEngine:
    """The product's fake engine, reached without Ray."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.backend = FakeBackend(settings)

    async def open(self, request: HttpRequest) -> LocalResponse:
        meter, context = metered()
        items = stream_asgi(
            self.backend.app,
            request,
            max_buffered_bytes=self.settings.max_buffered_bytes,
            abort_timeout_s=self.settings.abort_timeout_s,
            context=context,
        )
        head = await anext(items)
        assert isinstance(head, HttpHead)
        return LocalResponse(head, items, meter)

    async def probe(self) -> float:
        await self.backend.probe()
        return 0.0


@dataclass(frozen=True)
class FixedModel:
    name: str
    client: Engine = field(default_factory=ScriptedEngine)
    status: str = "running"
    message: str = ""
    info: ModelInfo | None = None

    @property
    def is_callable(self) -> bool:
        return self.status in ("running", "idle")


class FixedModels:
    def __init__(self, *models: Model) -> None:
        self._models = {model.name: model for model in models}

    def models(self) -> Mapping[str, Model]:
        return self._models


def model_info(name: str, *paths: str, **facts: Any) -> ModelInfo:
    known: dict[str, Any] = {
        "max_model_len": 4096,
        "created": 1_700_000_000,
        "version": "fake 1",
        "vocab_size": 1000,
        "openapi": "{}",
    }
    return ModelInfo(name, paths=frozenset(paths), **(known | facts))


def make_api(
    *models: Model,
    settings: GatewaySettings | None = None,
    tokenizer: ScriptedTokenizer | None = None,
    server_echoes: bool = False,
) -> FastAPI:
    return create_api(
        FixedModels(*models),
        settings or GatewaySettings(),
        tokenizer or ScriptedTokenizer(),
        server_echoes_request_id=server_echoes,
    )


def http_client(api: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://localhost")


def ask(api: FastAPI, request: httpx.Request) -> httpx.Response:
    """Send one request to the application; what it raises after its response has begun comes out here."""

    async def send() -> httpx.Response:
        async with http_client(api) as client:
            return await client.send(request)

    return run(send())


def get(path: str, **headers: str) -> httpx.Request:
    return httpx.Request("GET", f"http://localhost{path}", headers=headers)


def post(path: str, body: object) -> httpx.Request:
    """Make a POST of raw bytes, or of anything else as JSON."""
    if isinstance(body, bytes):
        return httpx.Request("POST", f"http://localhost{path}", content=body)
    return httpx.Request("POST", f"http://localhost{path}", json=body)
