"""What an engine replica needs of the engine inside it, whichever it is."""

from typing import Protocol

from config.models import ModelSettings
from deployments.analysis_types import Branches, BranchRequest, SampleRequest, Samples, ScoreRequest, TokenScores
from deployments.engine.asgi import AsgiApp
from deployments.engine.guide import Compiler
from deployments.guided_types import EngineGrammars
from deployments.types import EngineStats, ModelInfo


class EngineBackend(Protocol):
    """An engine that runs in this process: vLLM's, or the fake one."""

    app: AsgiApp
    """The OpenAI routes of the engine; valid after `start`."""

    async def start(self) -> None:
        """Load the model and be ready for fast answers; raises when that is impossible."""

    def info(self) -> ModelInfo: ...

    def stats(self) -> EngineStats: ...

    def num_unfinished(self) -> int:
        """Return how many requests the engine has and has not ended."""

    def last_step_s(self) -> float:
        """Return when the engine last did a step, by `time.monotonic`."""

    async def probe(self) -> None:
        """Have the engine generate one token; raises when it is dead."""

    async def score(self, request: ScoreRequest) -> TokenScores:
        """Say how likely each token of a prompt was; raises InvalidRequestError, or EngineUnavailableError."""

    async def branch(self, request: BranchRequest) -> Branches:
        """Say which tokens may come next, and what would follow; raises as `score` does."""

    async def sample(self, request: SampleRequest) -> Samples:
        """Sample continuations of a prompt; raises as `score` does."""

    async def grammars(self) -> EngineGrammars | None:
        """Say what the engine core has done with constraints; None when the pool compiles none for it."""

    def is_dead(self) -> bool:
        """Say whether the engine can never answer again."""

    def shutdown(self) -> None:
        """End the engine's processes; safe to call twice."""


def make_backend(settings: ModelSettings, device: str, rank: int, compiler: Compiler) -> EngineBackend:
    """Pick the implementation named by the settings; only the vLLM one imports vLLM.

    `device` is "cpu" or "gpu"; `rank` numbers this replica among those on its machine; `compiler` compiles constraints.
    """
    if settings.backend == "fake":
        from deployments.engine.fake_backend import FakeBackend

        return FakeBackend(settings)
    from deployments.engine.vllm_backend import VllmBackend

    return VllmBackend(settings, device, rank, compiler)
