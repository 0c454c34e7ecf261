"""Constraints asked of a GuidedCompiler whose answers are scripted: what is taught, asked again, told to the caller."""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.errors import EngineUnavailableError, InternalError, OverloadedError, ServingError
from deployments.guided.artifact import spec_key
from deployments.guided.client import APPLICATION, GuidedClient
from deployments.guided_types import Compiled, GrammarSpec, Refused, Vocabulary, VocabularyUnknown
from tests.aio import run, settle
from tests.handles import LOST, WAIT, Answer, from_replica

SPEC = GrammarSpec("json", '{"type": "object"}')
VOCABULARY = Vocabulary("print", "{}", "", vocab_size=10, eos_token_id=1)
KEY = spec_key(SPEC, VOCABULARY.fingerprint)
GOOD = Compiled(KEY, "xgrammar", b"artifact", compile_s=0.5, memory_bytes=1)
UNKNOWN = VocabularyUnknown(VOCABULARY.fingerprint, "replica")
ASK = ("compile", KEY, (SPEC, KEY, "print"))
TEACH = ("teach", KEY, (VOCABULARY,))
LONG_S = 60
AT_ONCE_S = 0.05
"""A time-out that is over when nothing answers."""
REQUEST: ContextVar[str] = ContextVar("request", default="")


class GuidedHandle:
    """A handle whose calls answer with one item after the other, and which remembers them and how they were sent."""

    def __init__(self, *items: object, has_replicas: bool = True) -> None:
        self.answers = [Answer([item]) for item in items]
        self.calls: list[tuple[str, str, tuple[object, ...]]] = []
        self.contexts: list[str] = []
        self.has_replicas = has_replicas

    def options(self, **options: str) -> "Method":
        return Method(self, options)

    def running_replicas_populated(self) -> bool:
        return self.has_replicas


class Method:
    def __init__(self, handle: GuidedHandle, options: dict[str, str]) -> None:
        self.handle = handle
        self.chosen = options

    def options(self, **options: str) -> "Method":
        return Method(self.handle, self.chosen | options)

    def remote(self, *arguments: object) -> Answer:
        self.handle.calls.append((self.chosen["method_name"], self.chosen["session_id"], arguments))
        self.handle.contexts.append(REQUEST.get())
        return self.handle.answers[len(self.handle.calls) - 1]


async def compile_spec(client: GuidedClient) -> Any:
    return await client.compile(SPEC, VOCABULARY, LONG_S)


def use(handle: GuidedHandle, ask: Callable[[GuidedClient], Awaitable[Any]] = compile_spec) -> Any:
    async def main() -> Any:
        return await ask(GuidedClient(handle))

    return run(main())


@pytest.mark.parametrize("verdict", [GOOD, Refused(KEY, "no")])
def test_the_replica_that_the_key_chooses_is_asked(verdict: object) -> None:
    handle = GuidedHandle(verdict)
    assert use(handle) is verdict
    assert handle.calls == [ASK]


def test_a_replica_that_does_not_know_the_vocabulary_is_taught_it_and_asked_again() -> None:
    handle = GuidedHandle(UNKNOWN, None, GOOD)
    assert use(handle) is GOOD
    assert handle.calls == [ASK, TEACH, ASK]


def test_a_vocabulary_is_taught_once() -> None:
    handle = GuidedHandle(UNKNOWN, None, UNKNOWN)
    with pytest.raises(EngineUnavailableError, match="vocabulary") as caught:
        use(handle)
    assert caught.value.retry_after_s
    assert handle.calls == [ASK, TEACH, ASK]


def test_of_all_who_find_out_at_once_one_teaches() -> None:
    handle = GuidedHandle(UNKNOWN, UNKNOWN, VocabularyUnknown("print", "another replica"), None, None, GOOD, GOOD, GOOD)

    async def ask(client: GuidedClient) -> list[Any]:
        return await asyncio.gather(*(compile_spec(client) for _ in range(3)))

    assert use(handle, ask) == [GOOD] * 3
    assert handle.calls == [ASK] * 3 + [TEACH] * 2 + [ASK] * 3


def test_a_verdict_is_looked_up_where_it_was_made() -> None:
    for found in (GOOD, None):
        handle = GuidedHandle(found)
        assert use(handle, lambda client: client.find(KEY, LONG_S)) is found
        assert handle.calls == [("find", KEY, (KEY,))]


def test_a_replica_that_is_lost_is_replaced_once() -> None:
    handle = GuidedHandle(LOST, UNKNOWN, LOST, None, GOOD)
    assert use(handle) is GOOD
    assert handle.calls == [ASK, ASK, TEACH, TEACH, ASK]
    handle = GuidedHandle(LOST, LOST, GOOD)
    with pytest.raises(EngineUnavailableError):
        use(handle)
    assert handle.calls == [ASK, ASK]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (from_replica(OverloadedError("64 constraints wait already", None, 1)), OverloadedError),
        (from_replica(EngineUnavailableError("no actor", None, 1)), EngineUnavailableError),
        (from_replica(ValueError("secret")), InternalError),
        (BackPressureError(1, 1), OverloadedError),
        (ValueError("secret"), InternalError),
    ],
)
def test_other_errors_are_told_and_not_retried(error: Exception, expected: type[ServingError]) -> None:
    handle = GuidedHandle(error, GOOD)
    with pytest.raises(expected) as caught:
        use(handle)
    assert "secret" not in str(caught.value)
    assert handle.calls == [ASK]


def test_an_application_that_is_gone_is_named() -> None:
    handle = GuidedHandle(DeploymentUnavailableError(DeploymentID(name="GuidedCompiler", app_name=APPLICATION)), GOOD)
    with pytest.raises(EngineUnavailableError, match=f"deploy the application `{APPLICATION}`"):
        use(handle)
    assert handle.calls == [ASK]


@pytest.mark.parametrize(
    ("has_replicas", "told"), [(True, "0.05 s"), (False, f"deploy the application `{APPLICATION}`")]
)
@pytest.mark.parametrize("before", [[], [UNKNOWN], [UNKNOWN, None], [LOST]])
def test_nothing_is_waited_for_longer_than_the_time_out(before: list[Any], has_replicas: bool, told: str) -> None:
    handle = GuidedHandle(*before, WAIT, has_replicas=has_replicas)
    with pytest.raises(EngineUnavailableError) as caught:
        use(handle, lambda client: client.compile(SPEC, VOCABULARY, AT_ONCE_S))
    assert told in caught.value.message
    assert caught.value.retry_after_s
    assert handle.answers[-1].cancelled.is_set()
    assert len(handle.calls) == len(handle.answers)


@pytest.mark.parametrize("before", [[], [UNKNOWN], [LOST]])
def test_leaving_cancels_the_call(before: list[Any]) -> None:
    handle = GuidedHandle(*before, WAIT)

    async def leave(client: GuidedClient) -> None:
        asking = asyncio.ensure_future(compile_spec(client))
        await settle()
        assert not handle.answers[-1].cancelled.is_set()
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()

    use(handle, leave)
    assert handle.answers[-1].cancelled.is_set()
    assert len(handle.calls) == len(handle.answers)


def test_calls_are_not_part_of_the_request_that_is_being_served() -> None:
    handle = GuidedHandle(UNKNOWN, None, GOOD)

    async def serve(client: GuidedClient) -> None:
        REQUEST.set("a request of Serve")
        await compile_spec(client)

    use(handle, serve)
    assert handle.contexts == ["", "", ""]
