"""Token-level calls on vLLM's engine: token ids in, token ids and log-probabilities out, no texts."""

import asyncio
import math
import uuid
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

from vllm import SamplingParams
from vllm.exceptions import GracefulHTTPError, VLLMClientError
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.exceptions import EngineDeadError

from config.models import ScoringSettings
from deployments.analysis_types import (
    Branch,
    Branches,
    BranchRequest,
    SampleRequest,
    Samples,
    ScoreRequest,
    TokenScores,
)
from deployments.errors import EngineUnavailableError, InvalidRequestError, OverloadedError
from deployments.types import Usage


class NativeCalls:
    """Calls an AsyncLLM directly."""

    def __init__(self, engine: Any, scoring: ScoringSettings) -> None:
        config = engine.vllm_config
        limit, vocab_size = config.model_config.max_logprobs, config.model_config.get_vocab_size()
        self._engine = engine
        # Under any other policy vLLM refuses priorities.
        self._priority = scoring.priority if config.scheduler_config.policy == "priority" else 0
        self._max_logprobs = vocab_size if limit == -1 else min(limit, vocab_size)
        self._cannot = why_not(config)
        self._scorings = asyncio.Semaphore(scoring.max_concurrent_requests)

    async def score(self, request: ScoreRequest) -> TokenScores:
        k = self._checked(request.num_alternatives)
        params = make_params(
            max_tokens=1, temperature=0.0, prompt_logprobs=k, logprobs=k if request.with_next else None
        )
        async with self._scorings:
            output = await self._run(request.prompt_token_ids, params, self._priority)
        flat, answer = output.prompt_logprobs, output.outputs[0]
        start = flat.start_indices[request.first] if request.first < len(flat) else len(flat.token_ids)
        return TokenScores(
            num_alternatives=k,
            token_ids=array("i", flat.token_ids[start:]),
            logprobs=array("f", flat.logprobs[start:]),
            ranks=array("i", flat.ranks[start :: k + 1]),
            # The first entry is the token that was sampled; it is among the others.
            next_ids=array("i", answer.logprobs.token_ids[1:] if request.with_next else ()),
            next_logprobs=array("f", answer.logprobs.logprobs[1:] if request.with_next else ()),
            usage=usage_of([output]),
        )

    async def branch(self, request: BranchRequest) -> Branches:
        """Take one step for the most likely tokens, then continue all of them at once over the same cached prefix."""
        outputs = []
        self._checked(request.num_branches)
        # The most likely tokens are few, and those to pass over among them fewer: nearly always one step is enough.
        asked = min(2 * request.num_branches, self._max_logprobs)
        while True:
            step = await self._run(request.prompt_token_ids, make_params(max_tokens=1, temperature=0.0, logprobs=asked))
            outputs.append(step)
            likely = most_likely(step.outputs[0].logprobs, request.skip_token_ids)
            if len(likely) >= request.num_branches or asked >= self._max_logprobs:
                break
            asked = min(4 * asked, self._max_logprobs)
        likely = likely[: request.num_branches]
        futures = await self._futures(request, [token_id for token_id, _ in likely])
        branches = [
            Branch(token_id, logprob, array("i", future.outputs[0].token_ids if future else ()))
            for (token_id, logprob), future in zip(likely, futures, strict=True)
        ]
        return Branches(tuple(branches), usage_of([*outputs, *filter(None, futures)]))

    def _checked(self, num_logprobs: int) -> int:
        if self._cannot:
            raise InvalidRequestError(f"This engine has no log-probabilities of texts: {self._cannot}.", "model")
        if num_logprobs > self._max_logprobs:
            raise InvalidRequestError(f"This model gives at most {self._max_logprobs} alternatives.", "k")
        return num_logprobs

    async def _futures(self, request: BranchRequest, token_ids: Sequence[int]) -> list[Any]:
        if request.num_future_tokens == 0:
            return [None] * len(token_ids)
        params = make_params(max_tokens=request.num_future_tokens, temperature=0.0)
        prompts = [[*request.prompt_token_ids, token_id] for token_id in token_ids]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._run(prompt, params)) for prompt in prompts]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return [task.result() for task in tasks]

    async def sample(self, request: SampleRequest) -> Samples:
        params = make_params(
            n=request.n,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_k=request.top_k,
            top_p=request.top_p,
        )
        output = await self._run(request.prompt_token_ids, params)
        return Samples(tuple(array("i", answer.token_ids) for answer in output.outputs), usage_of([output]))

    async def _run(self, prompt_token_ids: Iterable[int], params: SamplingParams, priority: int = 0) -> Any:
        """Run one request to its end; raises InvalidRequestError or EngineUnavailableError. Cancelling it aborts it."""
        prompt, request_id = {"prompt_token_ids": list(prompt_token_ids)}, f"analysis-{uuid.uuid4().hex}"
        outputs = self._engine.generate(prompt, params, request_id, priority=priority)
        try:
            return [output async for output in outputs][-1]  # FINAL_ONLY: it is the only one
        except EngineDeadError as error:
            raise EngineUnavailableError("The engine died. A replacement is starting; retry.", None, 1) from error
        except VLLMClientError as error:
            raise InvalidRequestError(str(error)) from error
        except GracefulHTTPError as error:  # vLLM's own bounds on what waits
            raise OverloadedError(str(error), "model", 1) from error


def why_not(config: Any) -> str:
    """Name the setting with which vLLM's log-probabilities of prompts would be wrong, or end the engine; "": none."""
    mode = config.model_config.logprobs_mode
    if not mode.endswith("_logprobs"):
        return f"`logprobs_mode` is {mode}"
    return "`kv_sharing_fast_prefill` is on" if config.cache_config.kv_sharing_fast_prefill else ""


def make_params(**given: Any) -> SamplingParams:
    # Without texts and with flat lists the front of the engine is twice as fast.
    return SamplingParams(detokenize=False, flat_logprobs=True, output_kind=RequestOutputKind.FINAL_ONLY, **given)


def most_likely(flat: Any, skip: frozenset[int]) -> list[tuple[int, float]]:
    """Return the possible next tokens with their log-probabilities, most likely first, from one row of FlatLogprobs."""
    rows = zip(flat.token_ids[1:], flat.logprobs[1:], strict=True)
    return [(token_id, logprob) for token_id, logprob in rows if token_id not in skip and logprob > -math.inf]


def usage_of(outputs: Iterable[Any]) -> Usage:
    """Count the tokens of RequestOutputs; the choices of one prompt share it."""
    outputs = list(outputs)
    completion = sum(len(answer.token_ids) for output in outputs for answer in output.outputs)
    return Usage(sum(len(output.prompt_token_ids) for output in outputs), completion)
