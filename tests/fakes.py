"""What the HTTP front needs of the graph, in process: engines with a script, and the product's own fake engine."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any

import httpx
from fastapi import FastAPI

from config.models import GatewaySettings, ModelSettings
from deployments.analysis_types import AnalysisRequest
from deployments.direct.local import LocalEngine
from deployments.engine.asgi import stream_asgi
from deployments.engine.fake_backend import FakeBackend
from deployments.engine.metering import metered
from deployments.errors import (
    EmptyCommandError,
    InstanceExistsError,
    InstanceNotFoundError,
    InstanceRunningError,
    KeyNotFoundError,
    ServingError,
)
from deployments.ingress.api import create_api
from deployments.ingress.on_demand import Catalog
from deployments.ingress.services import Engine, Instances, Model, Response
from deployments.instance_types import Instance, InstanceStatus, ParsedCommand, Snapshot, StoredKey
from deployments.instances.definitions import parsed_options
from deployments.instances.stored_keys import read as read_key
from deployments.types import Accepted, EngineStats, Headers, HttpHead, HttpRequest, ModelInfo, Usage
from tests.aio import run

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
        self.accepted_s = monotonic()
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

    async def loads(self) -> tuple[EngineStats, ...]:
        return (EngineStats(2, 1, 0.25), EngineStats(1, 0, 0.5))


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


class InProcessFake(LocalEngine):
    """The product's fake engine, reached without Ray."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.backend = FakeBackend(settings)
        super().__init__(self._stream, self._probed, self._read)

    async def _stream(self, request: HttpRequest) -> AsyncGenerator[Accepted | HttpHead | bytes | Usage, None]:
        yield Accepted()
        meter, context = metered()
        items = stream_asgi(
            self.backend.app,
            request,
            max_buffered_bytes=self.settings.max_buffered_bytes,
            abort_timeout_s=self.settings.abort_timeout_s,
            context=context,
        )
        async with contextlib.aclosing(items):
            async for item in items:
                yield item
        yield meter.end()

    async def _probed(self) -> float:
        await self.backend.probe()
        return 0.0

    async def _read(self) -> EngineStats:
        return self.backend.stats()


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


class FixedDirectory(FixedModels):
    """Applications that a test changes by hand: they are seen at the next look."""

    def __init__(self, *models: Model) -> None:
        super().__init__()
        self.applications: dict[str, Model] = {}
        self.num_looks = 0
        self.add(*models)

    def add(self, *models: Model) -> None:
        """Have these seen at once."""
        self.applications |= {model.name: model for model in models}
        self._models = dict(self.applications)

    async def refresh(self) -> None:
        self.num_looks += 1
        await asyncio.sleep(0)
        self._models = dict(self.applications)


class ScriptedInstances:
    """Instances that a test moves by hand. Options and keys are checked as the product checks them, but for vLLM's."""

    def __init__(self, *instances: Instance, directory: FixedDirectory | None = None) -> None:
        self.instances = {instance.name: instance for instance in instances}
        self.directory = directory or FixedDirectory()
        self.stored: dict[str, StoredKey] = {}
        self.in_use: Counter[str] = Counter()
        self.calls: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        """A start takes until it is set."""
        self.gate.set()
        self.refusal: ServingError | None = None
        """What a start raises."""
        self.engine: Engine = ScriptedEngine()
        """What runs after a start."""
        self.info: ModelInfo | None = None
        self.parsed = ParsedCommand({})
        self._snapshot = Snapshot(0)
        self.show()

    def show(self) -> None:
        """Let ingress replicas see how the instances are."""
        self._snapshot = Snapshot(self._snapshot.version + 1, tuple(self.instances.values()))

    def move(self, name: str, **fields: Any) -> Instance:
        """Change an instance without showing it."""
        self.instances[name] = replace(self.instances[name], **fields)
        return self.instances[name]

    def asked(self, operation: str) -> list[str]:
        return [name for called, name in self.calls if called == operation]

    def snapshot(self) -> Snapshot:
        return self._snapshot

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[None]:
        self.in_use[name] += 1
        try:
            yield
        finally:
            self.in_use[name] -= 1

    async def ensure(self, name: str) -> None:
        await self.get(name, "ensure")
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        self.move(name, status="running", ready=True)
        self.directory.applications[name] = FixedModel(name, self.engine, info=self.info)

    async def list(self) -> tuple[Instance, ...]:
        return tuple(self.instances.values())

    async def get(self, name: str, operation: str = "get") -> Instance:
        self.calls.append((operation, name))
        if name not in self.instances:
            raise InstanceNotFoundError(f"There is no instance `{name}`.")
        return self.instances[name]

    async def create(self, name: str, options: dict[str, Any]) -> Instance:
        if name in self.instances:
            raise InstanceExistsError(f"There is an instance `{name}`.")
        parsed_options(options)
        self.instances[name] = instance(name, options=options)
        return await self.get(name, "create")

    async def update(self, name: str, options: dict[str, Any]) -> Instance:
        await self.get(name, "update")
        parsed_options(options)
        return self.move(name, options=options)

    async def start(self, name: str) -> Instance:
        await self.get(name, "start")
        if self.refusal is not None:
            raise self.refusal
        return self.move(name, status="running")

    async def stop(self, name: str) -> Instance:
        await self.get(name, "stop")
        return self.move(name, status="stopped", ready=False)

    async def restart(self, name: str) -> Instance:
        await self.get(name, "restart")
        return self.move(name, status="restarting", ready=False)

    async def delete(self, name: str) -> None:
        if (await self.get(name, "delete")).status != "stopped":
            raise InstanceRunningError(f"The instance `{name}` runs.")
        del self.instances[name]

    async def log(self, name: str, lines: int | None) -> str:
        await self.get(name, "log")
        return f"the last {lines} of `{name}`: é\n"

    async def parse(self, command: str) -> ParsedCommand:
        self.calls.append(("parse", command))
        if not command.strip():
            raise EmptyCommandError("The command is empty.")
        return self.parsed

    async def vllm_version(self) -> str:
        return "0.0"

    async def nodes(self) -> tuple[dict[str, Any], ...]:
        return ({"id": "n", "alive": True},)

    async def create_key(self, fields: dict[str, Any]) -> tuple[StoredKey, str]:
        options = read_key(fields)
        key = StoredKey("id-1", options.name, options.kind, 1, None, tuple(options.instances or ()) or None)
        self.stored[key.id] = key
        return key, "sk-secret"

    async def keys(self) -> tuple[StoredKey, ...]:
        return tuple(self.stored.values())

    async def revoke_key(self, key_id: str) -> None:
        if self.stored.pop(key_id, None) is None:
            raise KeyNotFoundError(f"There is no key `{key_id}`.")


def instance(name: str, status: InstanceStatus = "stopped", **fields: Any) -> Instance:
    known: dict[str, Any] = {"options": {}, "command": f"vllm serve {name}", "ready": status == "running"}
    return Instance(f"id-{name}", name, status, created=1_600_000_000, **(known | fields))


def make_api(
    *models: Model,
    settings: GatewaySettings | None = None,
    tokenizer: ScriptedTokenizer | None = None,
    manager: Instances | None = None,
    server_echoes: bool = False,
) -> FastAPI:
    settings = settings or GatewaySettings()
    return create_api(
        FixedModels(*models) if manager is None else managed_models(manager, settings, *models),
        settings,
        tokenizer or ScriptedTokenizer(),
        manager=manager,
        server_echoes_request_id=server_echoes,
    )


def managed_models(manager: Instances, settings: GatewaySettings, *models: Model) -> Catalog:
    """Return these applications and a manager's instances as models."""
    directory = manager.directory if isinstance(manager, ScriptedInstances) else FixedDirectory()
    directory.add(*models)

    async def renew() -> None:
        if isinstance(manager, ScriptedInstances):
            manager.calls.append(("renew", ""))
            await asyncio.sleep(0)
            manager.show()

    return Catalog(directory, manager, settings, renew)


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
