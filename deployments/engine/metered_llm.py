"""vLLM's engine, with a note of what each request costs."""

from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM

from deployments.engine import metering
from deployments.types import Usage


class MeteredLLM(AsyncLLM):  # type: ignore[misc]
    """An AsyncLLM that leaves each request's state with the meter of the HTTP request it belongs to."""

    async def _add_request(self, request: Any, prompt: str | None, parent_req: Any, index: int, queue: Any) -> None:
        await super()._add_request(request, prompt, parent_req, index, queue)
        state = self.output_processor.request_states.get(request.request_id)
        if state is not None:
            metering.note(lambda: usage_of(state, is_first=index == 0))


def usage_of(state: Any, is_first: bool) -> Usage:
    """Read vLLM's RequestState. The choices of one prompt share it: it counts with the first."""
    completion_tokens = state.detokenizer.num_output_tokens() if state.detokenizer is not None else 0
    return Usage(state.prompt_len if is_first else 0, completion_tokens)
