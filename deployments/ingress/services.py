"""What the HTTP front needs of the rest of the graph; tests pass their own."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol, TypeVar

from deployments.types import HttpHead, HttpRequest, ModelInfo, Usage


class Response(Protocol):
    """A response that has begun."""

    head: HttpHead
    usage: Usage | None
    """Known once the body has been read to its end."""

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
