"""What vLLM's own output processor sends while the interval of its streams changes. Importing vLLM takes 5 s."""

import gc
import itertools
import warnings
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.streaming import StreamingSettings
from deployments.engine.stream_interval import PERIOD_S
from tests.demo import demo_tokenizer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns while it is imported
    from vllm import PoolingParams, SamplingParams
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
    from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector
    from vllm.v1.engine.parallel_sampling import ParentRequest
    from vllm.v1.metrics.stats import IterationStats
    from vllm.v1.outputs import LogprobsLists

    from deployments.engine.vllm_streams import StreamRecorder, Streams, set_interval

TEXT = "Grüße 日本語 👩‍👩‍👧‍👦 a small fox. The end, of it"  # characters of several tokens
JOINING = StreamingSettings(min_streams=2)
STEP_S = 0.01
STEPS = int(8 * PERIOD_S / STEP_S)
"""In which several decisions are made, the last ones by what these steps alone have shown."""
NAMES = map(str, itertools.count())


def token_ids() -> list[int]:
    ids: list[int] = demo_tokenizer().chat.encode(TEXT, add_special_tokens=False)
    return ids


@dataclass
class Received:
    """What the client of one request was sent."""

    chunks: int = 0
    ids: list[int] = field(default_factory=list)
    text: str = ""
    logprobs: list[int] = field(default_factory=list)
    """The token of each."""
    finish_reasons: list[str] = field(default_factory=list)

    def add(self, output: Any) -> None:
        for choice in output.outputs:
            self.chunks += 1
            self.ids += choice.token_ids
            self.text += choice.text
            self.logprobs += [next(iter(each)) for each in choice.logprobs or ()]
            self.finish_reasons += [choice.finish_reason] if choice.finish_reason else []


class Engine:
    """vLLM's output processor, given by hand what an engine core would send."""

    def __init__(self, settings: StreamingSettings | None = None, stream_interval: int = 1) -> None:
        self.processor = OutputProcessor(demo_tokenizer().chat, log_stats=True, stream_interval=stream_interval)
        streams = Streams(settings or StreamingSettings(adaptive=False), lambda: self.now_s)
        streams.follow(self.processor)
        self.recorder: StreamRecorder = streams.make_recorder(None)
        self.queues: dict[str, Any] = {}
        self.received: dict[str, Received] = {}
        self.now_s = 0.0

    def begin(self, parent: Any = None, index: int = 0, pooling: Any = None, **params: Any) -> str:
        """Begin a stream, or what `params` make of it; return its id."""
        kind = {"output_kind": RequestOutputKind.DELTA, "max_tokens": 999, **params}
        request: Any = engine_request(next(NAMES), None if pooling else SamplingParams(**kind), pooling)
        name: str = f"{index}_{parent.request_id}" if parent else request.request_id
        request.request_id = name
        self.queues[name], self.received[name] = RequestOutputCollector(kind["output_kind"], name), Received()
        self.processor.add_request(request, None, parent, index, self.queues[name])
        return name

    def state(self, name: str) -> Any:
        return self.processor.request_states[name]

    def step(self, outputs: Iterable[Any]) -> None:
        """Process a step's outputs, record it, and read what was sent."""
        stats = IterationStats()
        self.now_s += STEP_S
        self.processor.process_outputs(list(outputs), self.now_s, stats)
        self.recorder.record(None, stats)
        self.read()

    def steps(self, names: Iterable[str], num_steps: int) -> None:
        """Make so many steps with a token for each request."""
        for _ in range(num_steps):
            self.step(output(name, [300]) for name in names)

    def read(self) -> None:
        for name, queue in self.queues.items():
            if (sent := queue.get_nowait()) is not None:
                self.received[name].add(sent)


def engine_request(name: str, sampling: Any, pooling: Any = None) -> Any:
    return EngineCoreRequest(
        request_id=name,
        external_req_id=name,
        prompt_token_ids=[1, 2, 3],
        mm_features=None,
        sampling_params=sampling,
        pooling_params=pooling,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
    )


def output(name: str, ids: list[int], is_last: bool = False, logprobs: bool = False) -> Any:
    found = None
    if logprobs:
        rows = np.array([[each, each] for each in ids])
        found = LogprobsLists(rows, np.full(rows.shape, -0.5), np.zeros(len(ids), dtype=int))
    reason = FinishReason.LENGTH if is_last else None
    return EngineCoreOutput(name, ids, new_logprobs=found, finish_reason=reason)


def send(engine: Engine, name: str, sizes: Iterable[int], intervals: Iterable[int], ids: list[int]) -> Received:
    """Give the ids in steps of these sizes, with another interval before each; the rest comes in the last step."""
    leaving = False
    for size, tokens in zip(sizes, intervals, strict=False):
        if name not in engine.processor.request_states or not ids:
            break
        leaving = not set_interval(engine.state(name), 1 if leaving else tokens)
        engine.step([output(name, ids[:size], logprobs=True)])
        ids = ids[size:]
    if name in engine.processor.request_states:
        engine.step([output(name, ids, is_last=True, logprobs=True)])
    return engine.received[name]


SIZES = st.lists(st.integers(1, 3), max_size=40)
"""Tokens of a step: several with speculative decoding."""
INTERVALS = st.lists(st.sampled_from([1, 1, 2, 3, 8]), max_size=40)


@given(SIZES, INTERVALS)
def test_every_token_comes_once_whatever_happens_to_the_interval(sizes: list[int], intervals: list[int]) -> None:
    engine = Engine()
    received = send(engine, engine.begin(logprobs=1), sizes, intervals, token_ids())
    assert received.ids == received.logprobs == token_ids()
    assert received.text == TEXT
    assert received.finish_reasons == ["length"]


@given(SIZES, INTERVALS, st.sampled_from(["fox", "Grü", "end,", "語 👩", "not there"]), st.booleans())
def test_a_stop_text_ends_the_same_text(sizes: list[int], intervals: list[int], stop: str, kept: bool) -> None:
    texts = []
    for wanted in (intervals, [1] * len(sizes)):
        engine = Engine()
        name = engine.begin(logprobs=1, stop=[stop], include_stop_str_in_output=kept)
        received = send(engine, name, sizes, wanted, token_ids())
        assert received.ids == received.logprobs
        texts.append((received.text, received.ids, received.finish_reasons))
    assert texts[0] == texts[1]


@given(SIZES, INTERVALS)
def test_what_is_held_back_comes_when_the_request_is_aborted(sizes: list[int], intervals: list[int]) -> None:
    engine = Engine()
    name, ids = engine.begin(), token_ids()
    given_ids: list[int] = []
    for size, tokens in zip(sizes, intervals, strict=False):
        set_interval(engine.state(name), tokens)
        engine.step([output(name, ids[:size])])
        given_ids += ids[:size]
    engine.processor.abort_requests([name], internal=True)
    engine.read()
    assert engine.received[name].ids == given_ids
    assert engine.received[name].finish_reasons == ["abort"]


def test_many_streams_join_tokens_and_one_does_not() -> None:
    engine = Engine(JOINING)
    names = [engine.begin() for _ in range(4)]
    decide_after(engine, names)
    assert {engine.state(name).stream_interval for name in names} == {6}  # 100 tokens/s, 15 updates/s
    before = [engine.received[name].chunks for name in names]
    engine.steps(names, 12)
    assert [engine.received[name].chunks for name in names] == [each + 2 for each in before]  # of 6 tokens
    engine.step(output(name, [300], is_last=True) for name in names[1:])
    decide_after(engine, names[:1])
    engine.steps(names[:1], 1)
    before_alone = engine.received[names[0]].chunks
    engine.steps(names[:1], 5)
    assert engine.received[names[0]].chunks == before_alone + 5
    assert engine.state(names[0]).stream_interval == 1


def decide_after(engine: Engine, names: list[str]) -> None:
    """Make steps until these streams have decided the interval."""
    engine.steps(names, STEPS)


def test_a_new_stream_shows_its_first_token_at_once_and_joins_the_next() -> None:
    engine = Engine(JOINING)
    names = [engine.begin() for _ in range(4)]
    decide_after(engine, names)
    new = engine.begin()
    engine.steps([new], 1)
    assert engine.received[new].ids == [300]
    engine.steps([new], 5)
    assert engine.received[new].chunks == 1
    engine.step([output(new, [301], is_last=True)])
    assert engine.received[new].ids == [300] * 6 + [301]


def test_a_stream_alone_does_not_inherit_the_interval_of_a_load_that_is_gone() -> None:
    engine = Engine(JOINING)
    names = [engine.begin() for _ in range(4)]
    decide_after(engine, names)
    engine.step(output(name, [300], is_last=True) for name in names)
    alone = engine.begin()
    engine.steps([alone], 5)
    assert engine.received[alone].chunks == 5


@pytest.mark.parametrize(
    "params",
    [
        {"stream_interval": 1},
        {"stream_interval": 3},
        {"output_kind": RequestOutputKind.FINAL_ONLY},
        {"output_kind": RequestOutputKind.CUMULATIVE},
        {"pooling": PoolingParams(task="embed")},
    ],
)
def test_other_requests_are_left_alone(params: dict[str, Any]) -> None:
    engine = Engine(JOINING)
    names = [engine.begin() for _ in range(4)]
    other = engine.begin(**params)
    decide_after(engine, names)
    assert engine.state(names[0]).stream_interval == 6
    assert engine.state(other).stream_interval == params.get("stream_interval", 1)
    assert engine.state(engine.begin(**params)).stream_interval == params.get("stream_interval", 1)


def test_the_engines_own_interval_is_the_least() -> None:
    engine = Engine(JOINING, stream_interval=4)
    alone = engine.begin()
    decide_after(engine, [alone])
    assert engine.state(alone).stream_interval == 4
    names = [engine.begin() for _ in range(4)]
    decide_after(engine, names)
    assert engine.state(names[0]).stream_interval == 6


def test_it_can_be_switched_off() -> None:
    engine = Engine(StreamingSettings(adaptive=False))
    names = [engine.begin() for _ in range(20)]
    decide_after(engine, names)
    assert {received.chunks for received in engine.received.values()} == {STEPS}


def test_choices_of_one_request_keep_their_tokens_apart() -> None:
    engine = Engine(JOINING)
    parent = ParentRequest(engine_request("p", SamplingParams(n=3, output_kind=RequestOutputKind.DELTA)))
    for index in range(3):
        parent.get_child_info(index)
    names = [engine.begin(parent, index) for index in range(3)]
    decide_after(engine, names)
    engine.steps(names, 2)
    engine.step(output(name, [301 + index], is_last=True) for index, name in enumerate(names))
    for index, name in enumerate(names):
        assert engine.received[name].ids == [300] * (STEPS + 2) + [301 + index]


def test_states_are_not_kept() -> None:
    engine = Engine(JOINING)
    name = engine.begin()
    state = weakref.ref(engine.state(name))
    engine.step([output(name, [300], is_last=True)])
    gc.collect()
    assert state() is None
