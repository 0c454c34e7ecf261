"""The GuidedCompiler deployment: compiles constraints for all engines, away from all of them. CPU only."""

from ray import serve
from ray.serve.handle import DeploymentHandle

from config.guided import GuidedSettings
from deployments.guided.metrics import Metrics
from deployments.guided.pool import Pool
from deployments.guided.verdicts import Verdicts
from deployments.guided_types import CompilerStats, GrammarSpec, Verdict, Vocabulary, VocabularyUnknown


@serve.deployment
class GuidedCompiler:
    """Called through GuidedClient, which sends everything about a constraint to the same replica."""

    def __init__(self, settings: GuidedSettings) -> None:
        name = serve.get_replica_context().replica_id.unique_id
        self._pool = Pool(settings)
        self._verdicts = Verdicts(name, self._pool, settings, Metrics())

    async def compile(self, spec: GrammarSpec, key: str, fingerprint: str) -> Verdict | VocabularyUnknown:
        """Say whether a constraint can be had, and give its artifact.

        Raises OverloadedError when too many wait, EngineUnavailableError when no actor could compile it.
        """
        return await self._verdicts.get(spec, key, fingerprint)

    async def teach(self, vocabulary: Vocabulary) -> None:
        self._verdicts.teach(vocabulary)

    async def find(self, key: str) -> Verdict | None:
        """Return the verdict if there is one already."""
        return self._verdicts.find(key)

    async def stats(self) -> CompilerStats:
        return self._verdicts.stats()

    async def __del__(self) -> None:
        self._pool.close()


@serve.deployment
class GuidedFront:
    """The front that every application must have, without a replica: engines call the GuidedCompiler itself.

    That one cannot be the front: with HAProxy, Serve lets no front choose replicas by a key.
    """

    def __init__(self, compiler: DeploymentHandle) -> None:
        pass
