"""Calling the GuidedCompiler."""

import asyncio
import logging
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeVar

from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from deployments.errors import EngineUnavailableError, ServingError
from deployments.guided.artifact import spec_key
from deployments.guided.flights import Flights
from deployments.guided_types import GrammarSpec, Verdict, Vocabulary, VocabularyUnknown
from deployments.ray_errors import REPLICA_LOST, to_serving_error

logger = logging.getLogger("ray.serve")

APPLICATION = "guided"
DEPLOYMENT = "GuidedCompiler"
RETRY_AFTER_S = 1
NOT_DEPLOYED = f"Constraints cannot be compiled: deploy the application `{APPLICATION}`."

T = TypeVar("T")


class GuidedClient:
    """Typed front of the GuidedCompiler's handle, which is that of the application `guided` unless one is given.

    Made in the event loop that uses it. The application may come, go and come back: a client finds it when it is there.
    """

    def __init__(self, handle: Any = None) -> None:
        # Not `serve.get_deployment_handle`: it asks the controller, which would stop the event loop, and it fails when
        # there is no such application yet.
        handle = handle or DeploymentHandle(DEPLOYMENT, APPLICATION)
        self._handle = handle
        self._compile = handle.options(method_name="compile")
        self._teach = handle.options(method_name="teach")
        self._find = handle.options(method_name="find")
        self._lessons: Flights[None] = Flights()

    async def compile(self, spec: GrammarSpec, vocabulary: Vocabulary, timeout_s: float) -> Verdict:
        """Have a constraint compiled for a vocabulary, or get to know why it cannot be.

        A replica that is lost is replaced by another, once. Cancelling it tells the replica, which stops to compile
        what nobody else waits for. Raises OverloadedError when too many constraints wait, EngineUnavailableError
        when there is no verdict within `timeout_s`.
        """
        return await self._within(timeout_s, self._taught(spec, vocabulary))

    async def find(self, key: str, timeout_s: float) -> Verdict | None:
        """Return the verdict on a constraint if there is one already; raises EngineUnavailableError."""
        found: Verdict | None = await self._within(timeout_s, self._ask(self._find, key, key))
        return found

    async def _taught(self, spec: GrammarSpec, vocabulary: Vocabulary) -> Verdict:
        key = spec_key(spec, vocabulary.fingerprint)
        answer = await self._ask(self._compile, key, spec, key, vocabulary.fingerprint)
        if isinstance(answer, VocabularyUnknown):
            # Of all who find out at once, say when a replica is new, one teaches: vocabularies have megabytes.
            what = f"{answer.fingerprint} {answer.compiler}"
            await self._lessons.run(what, lambda: self._ask(self._teach, key, vocabulary))
            answer = await self._ask(self._compile, key, spec, key, vocabulary.fingerprint)
        if isinstance(answer, VocabularyUnknown):  # another replica than was taught, or too many models at once
            text = "The compiler of constraints does not know this model's vocabulary yet. Retry."
            raise EngineUnavailableError(text, None, RETRY_AFTER_S)
        verdict: Verdict = answer
        return verdict

    async def _ask(self, method: Any, key: str, *arguments: object) -> Any:
        routed = method.options(session_id=key)  # Serve then chooses the replica by the key
        try:
            return await answered(routed, *arguments)
        except REPLICA_LOST as error:
            logger.warning("asking another compiler of constraints: %r", error)
        except Exception as error:
            raise told(error) from error
        try:
            return await answered(routed, *arguments)
        except Exception as error:
            raise told(error) from error

    async def _within(self, timeout_s: float, call: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await call
        except TimeoutError as error:
            if self._handle.running_replicas_populated():
                text = f"No compiler of constraints answered within {timeout_s:g} s. Retry later."
            else:
                text = NOT_DEPLOYED
            raise EngineUnavailableError(text, None, RETRY_AFTER_S) from error


def told(error: Exception) -> ServingError:
    """Translate what a handle raised."""
    if isinstance(error, DeploymentUnavailableError):  # deleted, or its deployment failed
        return EngineUnavailableError(NOT_DEPLOYED, None, RETRY_AFTER_S)
    return to_serving_error(error)


async def answered(method: Any, *arguments: object) -> Any:
    """Wait for a call's answer; whoever is cancelled meanwhile cancels the call, too.

    The call is made outside the context of the request that is being served. Serve gives all calls of one request the
    same id, and its ConsistentHashRouter forgets one of two that wait for a replica under the same id; and it cancels
    them when the request ends, though others may wait for the same constraint.
    """
    response = Context().run(method.remote, *arguments)
    try:
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
