"""What the Tokenizer tells Prometheus of the questions that it answers."""

import contextlib
import time
from collections.abc import Callable, Iterator

from deployments import telemetry
from deployments.analysis_types import Question
from deployments.errors import ServingError
from deployments.types import Usage


class Metrics:
    """Made in a replica, or its metrics would not carry the replica's name."""

    def __init__(self) -> None:
        self._took_s = telemetry.WRITING_S.make()
        self._tokens = telemetry.WRITING_PROMPT_TOKENS.make()

    @contextlib.contextmanager
    def watched(self, model: str, question: Question) -> Iterator[Callable[[Usage], None]]:
        """Measure a question while the block runs; gives what takes its cost."""
        tags = {"model": model, "question": name_of(question)}
        outcome, begin_s = "left", time.monotonic()

        def used(usage: Usage) -> None:
            if usage.prompt_tokens:  # Ray's counters refuse 0
                self._tokens.inc(usage.prompt_tokens, tags=tags)

        try:
            yield used
            outcome = "answered"
        except Exception as error:
            outcome = outcome_of(error)
            raise
        finally:
            self._took_s.observe(time.monotonic() - begin_s, tags=tags | {"outcome": outcome})


def name_of(question: Question) -> str:
    return type(question).__name__.removesuffix("Question").lower()


def outcome_of(error: Exception) -> str:
    return (error.code or error.type) if isinstance(error, ServingError) else ServingError.type
