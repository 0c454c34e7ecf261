"""A pool and an engine core of guided decoding in memory, for tests of what lies between them."""

import asyncio
from collections.abc import Sequence

from config.guided import EngineGuidedSettings
from deployments.engine.guide import Guide
from deployments.errors import ServingError
from deployments.guided.artifact import spec_key
from deployments.guided_types import Compiled, EngineGrammars, GrammarSpec, Refused, Verdict, Vocabulary

VOCABULARY = Vocabulary("fingerprint", "", "", 10, 1)
REGEX = GrammarSpec("regex", "a+")
SMALL = GrammarSpec("json_object", "")


class InMemoryCompiler:
    """Answers when it is let; `outcome` is what becomes of every constraint."""

    def __init__(self, outcome: "ServingError | str" = "compiled", size_bytes: int = 1000) -> None:
        self.outcome = outcome
        self.size_bytes = size_bytes
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.asked: list[tuple[GrammarSpec, float]] = []
        self.num_cancelled = 0

    async def compile(self, spec: GrammarSpec, vocabulary: Vocabulary, timeout_s: float) -> Verdict:
        self.asked.append((spec, timeout_s))
        try:
            await self.may_go_on.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        return self.verdict(spec_key(spec, vocabulary.fingerprint))

    async def find(self, key: str, timeout_s: float) -> Verdict | None:
        return None if self.outcome == "forgotten" else self.verdict(key)

    def verdict(self, key: str) -> Verdict:
        if isinstance(self.outcome, ServingError):
            raise self.outcome
        if self.outcome == "refused":
            return Refused(key, "too deep")
        return Compiled(key, "xgrammar", b"artifact", 0.5, self.size_bytes, enforced=("type",))


class InMemoryCore:
    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.num_loads = 0
        self.is_broken = False
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def load(self, key: str, artifact: bytes) -> None:
        self.num_loads += 1
        await self.may_go_on.wait()
        if self.is_broken:
            raise RuntimeError("not a compiled constraint")
        self.held[key] = artifact

    async def counts(self) -> EngineGrammars:
        return EngineGrammars(len(self.held), 0, 0)

    async def drop(self, keys: Sequence[str]) -> None:
        for key in keys:
            del self.held[key]


def make_guide(compiler: InMemoryCompiler, **settings: float) -> tuple[Guide, InMemoryCore]:
    core = InMemoryCore()
    return Guide(compiler, core, VOCABULARY, EngineGuidedSettings(**settings)), core  # type: ignore[arg-type]
