"""A process that asks for constraints as engines do: guided_probe.py RAY_ADDRESS; commands in, answers out, JSON lines.

A process of its own, because what Serve keeps in a driver's process does not survive a change of clusters.
"""

import asyncio
import dataclasses
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import ray
import xgrammar
from ray.serve.context import _set_request_context
from ray.serve.handle import DeploymentHandle

from deployments.errors import ServingError
from deployments.guided.artifact import spec_key, vocabulary_of
from deployments.guided.client import APPLICATION, DEPLOYMENT, GuidedClient
from deployments.guided_types import GrammarSpec, Vocabulary

PREFIX = "ANSWER "
NUM_BYTES = 256


def vocabulary() -> Vocabulary:
    """Make one of single bytes and an end: enough to compile for, and nothing to load."""
    tokens = [*(bytes([byte]) for byte in range(NUM_BYTES)), b"</s>"]
    info = xgrammar.TokenizerInfo(tokens, vocab_type=xgrammar.VocabType.RAW, stop_token_ids=[NUM_BYTES])
    return vocabulary_of(info.serialize_json(), "", vocab_size=len(tokens), eos_token_id=NUM_BYTES)


class Probe:
    """Answers commands: each method is one."""

    def __init__(self) -> None:
        self._client = GuidedClient()
        self._handle = DeploymentHandle(DEPLOYMENT, APPLICATION)
        self._vocabulary = vocabulary()
        self._begun: dict[str, asyncio.Task[Any]] = {}

    async def compile(self, schemas: list[str], timeout_s: float) -> list[Any]:
        """Ask for all of them at once, within one request of Serve, as an engine replica may."""
        _set_request_context(request_id="probe", _internal_request_id="probe")
        return await asyncio.gather(*(self._verdict(schema, timeout_s) for schema in schemas))

    async def begin(self, name: str, schema: str, timeout_s: float) -> None:
        self._begun[name] = asyncio.create_task(self._verdict(schema, timeout_s))

    async def end(self, name: str) -> Any:
        return await self._begun.pop(name)

    async def leave(self, name: str) -> None:
        asking = self._begun.pop(name)
        asking.cancel()
        await asyncio.wait({asking})

    async def find(self, schema: str, timeout_s: float) -> Any:
        key = spec_key(GrammarSpec("json", schema), self._vocabulary.fingerprint)
        return described(await self._client.find(key, timeout_s))

    async def stats(self) -> list[Any]:
        """Ask every replica."""
        answers: list[Any] = await self._handle.broadcast("stats").results_async()
        return [dataclasses.asdict(stats) for stats in answers]

    async def _verdict(self, schema: str, timeout_s: float) -> Any:
        try:
            return described(await self._client.compile(GrammarSpec("json", schema), self._vocabulary, timeout_s))
        except ServingError as error:
            return {"type": type(error).__name__, "message": error.message}


def described(verdict: Any) -> Any:
    if verdict is None:
        return None
    fields = {"type": type(verdict).__name__} | dataclasses.asdict(verdict)
    artifact = fields.pop("artifact", b"")
    return fields | {"artifact_bytes": len(artifact)}


async def main() -> None:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error", namespace="serve")
    probe = Probe()
    while line := await asyncio.to_thread(sys.stdin.readline):
        name, *arguments = json.loads(line)
        command: Callable[..., Awaitable[Any]] = getattr(probe, name)
        print(PREFIX + json.dumps(await command(*arguments)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
