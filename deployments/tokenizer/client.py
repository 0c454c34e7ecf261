"""Calling the Tokenizer."""

import logging
from time import monotonic
from typing import Any

from deployments.analysis_types import AnalysisRequest
from deployments.engine.client import EngineResponse
from deployments.ray_errors import REPLICA_LOST, to_serving_error

logger = logging.getLogger("ray.serve")


class TokenizerClient:
    """Typed front of the Tokenizer's handle."""

    def __init__(self, handle: Any) -> None:
        self._answer = handle.options(method_name="answer", stream=True)

    async def open(self, request: AnalysisRequest) -> EngineResponse:
        """Ask a question and wait for its answer's head.

        A replica that is lost before is replaced by another, once. Raises ServingError.
        """
        try:
            return await self._open(request)
        except REPLICA_LOST as error:
            logger.warning("asking another Tokenizer: %r", error)
        except Exception as error:
            raise to_serving_error(error) from error
        try:
            return await self._open(request)
        except Exception as error:
            raise to_serving_error(error) from error

    async def _open(self, request: AnalysisRequest) -> EngineResponse:
        sent_s = monotonic()
        items: Any = self._answer.remote(request)
        try:
            return EngineResponse(await items.__anext__(), items, sent_s)
        except BaseException:
            items.cancel()
            raise
