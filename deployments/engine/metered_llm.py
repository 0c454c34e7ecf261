"""vLLM's engine, with a note of what each request costs."""

from collections.abc import Callable
from time import monotonic
from typing import Any

from vllm.v1.engine.async_llm import AsyncLLM

from deployments.engine import metering
from deployments.types import Usage


class MeteredLLM(AsyncLLM):  # type: ignore[misc]
    """An AsyncLLM that leaves the counts of each request with the meter of the HTTP request it belongs to."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        metered(self.output_processor)


def metered(processor: Any) -> None:
    """Have the state of each engine request that vLLM's OutputProcessor is given noted with its HTTP request."""
    tell_of_new(processor, note_cost)


def note_cost(request: Any, state: Any, index: int) -> None:
    metering.note(counts_of(state, is_first=index == 0), stamps_of(state.stats, monotonic()))


def tell_of_new(processor: Any, tell: Callable[[Any, Any, int], None]) -> None:
    """Call `tell` with each EngineCoreRequest that vLLM's OutputProcessor is given, its new state, and its choice.

    The one place that all of them pass: `AsyncLLM._add_request` is not called for the choices of `n > 1`. It runs in
    the task, or in a child of the task, that serves the HTTP request.
    """
    add_request = processor.add_request

    def add_and_tell(
        request: Any, prompt: str | None, parent_req: Any = None, request_index: int = 0, queue: Any = None
    ) -> None:
        is_new = request.request_id not in processor.request_states  # a part of a streamed prompt is none
        add_request(request, prompt, parent_req, request_index, queue)
        if is_new:
            tell(request, processor.request_states[request.request_id], request_index)

    processor.add_request = add_and_tell


def counts_of(state: Any, is_first: bool) -> Callable[[], Usage]:
    """Say where vLLM's RequestState has its counts. The choices of one prompt share it: it counts with the first."""
    prompt_tokens = state.prompt_len if is_first else 0
    # Not the whole state: it may hold logprobs of the prompt, and a beam search makes thousands of them.
    detokenizer = state.detokenizer
    if detokenizer is None:  # a pooling request
        return lambda: Usage(prompt_tokens, 0)
    return lambda: Usage(prompt_tokens, detokenizer.num_output_tokens())


def stamps_of(stats: Any, arrived_s: float) -> Callable[[], metering.Stamps] | None:
    """Say where vLLM's RequestStateStats has its times, which are its core's; None when it keeps none."""
    if stats is None:  # disable_log_stats
        return None
    return lambda: metering.Stamps(arrived_s, stats.scheduled_ts, stats.first_token_ts, stats.last_token_ts)
