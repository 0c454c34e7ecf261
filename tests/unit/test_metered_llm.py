"""What is noted of each request in vLLM's own output processor. vLLM is imported here: about five seconds."""

import warnings
from typing import Any

import pytest

from deployments.engine.metering import metered as new_meter
from deployments.types import Usage

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns while it is imported
    from vllm import PoolingParams, SamplingParams
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
    from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
    from vllm.v1.engine.parallel_sampling import ParentRequest

    from deployments.engine.metered_llm import metered

PROMPT = [1, 2, 3]


def engine_request(request_id: str, n: int = 1, pooling: bool = False) -> Any:
    sampling = None if pooling else SamplingParams(n=n, max_tokens=9, detokenize=False)
    return EngineCoreRequest(
        request_id=request_id,
        external_req_id=request_id,
        prompt_token_ids=PROMPT,
        mm_features=None,
        sampling_params=sampling,
        pooling_params=PoolingParams(task="embed") if pooling else None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )


def processor() -> Any:
    made = OutputProcessor(tokenizer=None, log_stats=False)
    metered(made)
    return made


def queue() -> Any:
    return RequestOutputCollector(SamplingParams().output_kind, "q")


def step(outputs: Any, request_id: str, token_ids: list[int], is_last: bool = False) -> None:
    reason = FinishReason.LENGTH if is_last else None
    outputs.process_outputs([EngineCoreOutput(request_id, token_ids, finish_reason=reason)])


def test_counts_outlive_the_request() -> None:
    outputs, (meter, context) = processor(), new_meter()
    context.run(outputs.add_request, engine_request("a"), None, None, 0, queue())
    assert meter.total() == Usage(3, 0)
    step(outputs, "a", [5])
    step(outputs, "a", [6, 7], is_last=True)
    assert outputs.request_states == {}
    assert meter.total() == Usage(3, 3)


def test_choices_share_their_prompt() -> None:
    outputs, (meter, context) = processor(), new_meter()
    parent = ParentRequest(engine_request("p", n=3))
    for index in range(3):
        child = engine_request("p", n=3)
        child.request_id, child.sampling_params = parent.get_child_info(index)
        context.run(outputs.add_request, child, None, parent, index, queue())
    for index in range(3):
        step(outputs, f"{index}_p", [5] * (index + 1), is_last=True)
    assert meter.total() == Usage(3, 6)


def test_a_batch_counts_every_prompt() -> None:
    outputs, (meter, context) = processor(), new_meter()
    for name in ("a", "b"):
        context.run(outputs.add_request, engine_request(name), None, None, 0, queue())
    assert meter.total() == Usage(6, 0)


def test_a_pooling_request_costs_its_prompt() -> None:
    outputs, (meter, context) = processor(), new_meter()
    context.run(outputs.add_request, engine_request("a", pooling=True), None, None, 0, queue())
    assert meter.total() == Usage(3, 0)


@pytest.mark.parametrize("metered_one", ["a", "b"])
def test_requests_count_for_their_own_meter_only(metered_one: str) -> None:
    outputs, (meter, context) = processor(), new_meter()
    for name in ("a", "b"):
        add = context.run if name == metered_one else lambda function, *args: function(*args)
        add(outputs.add_request, engine_request(name), None, None, 0, queue())
        step(outputs, name, [5], is_last=True)
    assert meter.total() == Usage(3, 1)
