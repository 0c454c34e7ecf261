"""What is known already: verdicts, and the vocabularies they are for. What was not used for the longest time goes."""

from collections import OrderedDict

from deployments.guided_types import Compiled, Verdict, Vocabulary

OVERHEAD_BYTES = 1024
"""What a verdict takes besides its artifact or message, about."""


class VerdictCache:
    """Verdicts by key, good and bad, within a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._verdicts: OrderedDict[str, Verdict] = OrderedDict()
        self.num_bytes = 0

    def __len__(self) -> int:
        return len(self._verdicts)

    def get(self, key: str) -> Verdict | None:
        """Return a verdict, which then is the last to go."""
        verdict = self._verdicts.get(key)
        if verdict is not None:
            self._verdicts.move_to_end(key)
        return verdict

    def put(self, verdict: Verdict) -> None:
        """Keep a verdict; one that is larger than the whole cache is not kept, and nothing goes for it."""
        self._drop(verdict.key)
        needed = num_bytes_of(verdict)
        if needed > self._max_bytes:
            return
        while self.num_bytes + needed > self._max_bytes:
            self._drop(next(iter(self._verdicts)))
        self._verdicts[verdict.key] = verdict
        self.num_bytes += needed

    def _drop(self, key: str) -> None:
        verdict = self._verdicts.pop(key, None)
        if verdict is not None:
            self.num_bytes -= num_bytes_of(verdict)


class VocabularyCache:
    """Vocabularies by fingerprint, so many at most."""

    def __init__(self, max_vocabularies: int) -> None:
        self._max_vocabularies = max_vocabularies
        self._vocabularies: OrderedDict[str, Vocabulary] = OrderedDict()

    def get(self, fingerprint: str) -> Vocabulary | None:
        """Return a vocabulary, which then is the last to go."""
        vocabulary = self._vocabularies.get(fingerprint)
        if vocabulary is not None:
            self._vocabularies.move_to_end(fingerprint)
        return vocabulary

    def put(self, vocabulary: Vocabulary) -> None:
        self._vocabularies[vocabulary.fingerprint] = vocabulary
        self._vocabularies.move_to_end(vocabulary.fingerprint)
        while len(self._vocabularies) > self._max_vocabularies:
            self._vocabularies.popitem(last=False)


def num_bytes_of(verdict: Verdict) -> int:
    """Return what a verdict takes in memory, about."""
    if isinstance(verdict, Compiled):
        names = sum(len(name) for name in (*verdict.enforced, *verdict.ignored))
        return OVERHEAD_BYTES + len(verdict.artifact) + names
    return OVERHEAD_BYTES + len(verdict.message.encode())
