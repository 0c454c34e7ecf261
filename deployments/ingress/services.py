"""What the HTTP front needs of the rest of the graph; tests pass their own."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from deployments.instance_types import Instance, ParsedCommand, Snapshot, StoredKey
from deployments.types import EngineStats, HttpHead, HttpRequest, ModelInfo, Usage


class Response(Protocol):
    """A response that has begun."""

    @property
    def head(self) -> HttpHead: ...
    @property
    def accepted_s(self) -> float:
        """Return when somebody had the request, seconds of the monotonic clock."""

    @property
    def usage(self) -> Usage | None:
        """Return what it cost; None until the body has been read to its end."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    def cancel(self) -> None:
        """Abort the request in the engine; nothing happens when it has ended."""


class Forwarded(Protocol):
    """A request on its way to whoever answers it."""

    @property
    def path(self) -> str: ...
    @property
    def body(self) -> bytes: ...


R = TypeVar("R", bound=Forwarded, contravariant=True)


class Upstream(Protocol[R]):
    """Who answers requests: an engine, or the Tokenizer."""

    async def open(self, request: R) -> Response:
        """Send a request and wait for its response's head; raises ServingError."""


class Engine(Upstream[HttpRequest], Protocol):
    async def probe(self) -> float:
        """Have a replica generate one token, return the seconds it took; raises ServingError when it does not."""

    async def loads(self) -> tuple[EngineStats, ...]:
        """Return the load of each replica; raises ServingError."""


class Model(Protocol):
    """One model, ready or not."""

    @property
    def name(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def client(self) -> Engine: ...
    @property
    def info(self) -> ModelInfo | None: ...
    @property
    def is_callable(self) -> bool: ...


class Models(Protocol):
    def models(self) -> Mapping[str, Model]:
        """Return the models there are now, by name."""


class Instances(Protocol):
    """The manager of instances. Every call raises ServingError; EngineUnavailableError when it cannot be reached."""

    def snapshot(self) -> Snapshot:
        """Return what was last heard of instances and keys; does not wait."""

    def using(self, name: str) -> AbstractContextManager[None]:
        """Have an instance counted as in use while the block runs, so that it is not stopped."""

    async def ensure(self, name: str) -> None:
        """Have an instance started and wait until it is ready; does nothing when it is.

        Raises InstanceStoppingError, StartFailedError, MaxInstancesError, InsufficientResourcesError,
        DeadlineExceededError.
        """

    async def list(self) -> tuple[Instance, ...]: ...
    async def get(self, name: str) -> Instance: ...
    async def create(self, name: str, options: dict[str, Any]) -> Instance:
        """Define an instance, stopped; `options` is the body as it came: they are checked there."""

    async def update(self, name: str, options: dict[str, Any]) -> Instance: ...
    async def start(self, name: str) -> Instance:
        """Have it started; returns once it is on its way, not yet ready."""

    async def stop(self, name: str) -> Instance: ...
    async def restart(self, name: str) -> Instance: ...
    async def delete(self, name: str) -> None: ...
    async def log(self, name: str, lines: int | None) -> str: ...
    async def parse(self, command: str) -> ParsedCommand: ...
    async def vllm_version(self) -> str: ...
    async def nodes(self) -> tuple[dict[str, Any], ...]:
        """Describe the cluster's machines: id, address, whether alive, CPUs, GPUs, memory in bytes."""

    async def create_key(self, fields: dict[str, Any]) -> tuple[StoredKey, str]:
        """Make a key: `name`, `kind`, `expires_in_s`, `instances`. Returns the key itself, this once."""

    async def keys(self) -> tuple[StoredKey, ...]: ...
    async def revoke_key(self, key_id: str) -> None: ...
