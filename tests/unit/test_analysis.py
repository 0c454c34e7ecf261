"""The writing tools' questions, answered with the demo model's tokenizer and the numbers of the fake engine."""

import asyncio
import contextlib
import math
import unicodedata
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.writing import WritingSettings
from deployments.analysis_types import (
    Branch,
    Branches,
    BranchesQuestion,
    BranchRequest,
    HighlightsQuestion,
    LogprobsQuestion,
    MessageText,
    RevisionsQuestion,
    SampleRequest,
    Samples,
    ScoreRequest,
    TokenScores,
)
from deployments.engine import fake_native
from deployments.errors import ContextLengthError, EngineUnavailableError, InvalidRequestError
from deployments.tokenizer.analysis import MAX_ROUNDS, Analyst, Engine
from deployments.types import Usage
from tests.aio import run
from tests.demo import demo_tokenizer
from tests.tokenizers import SIX_SCRIPTS, documents

WINDOW = 200
LONG = "".join(f" {number} the fox." for number in range(300))
USER: MessageText = ("user", "Hi")
BEGUN: tuple[MessageText, ...] = (USER, ("assistant", "Once upon"))


@dataclass
class FakeEngine:
    """The product's fake engine without Ray; remembers what it is asked, and takes no more than its window."""

    max_model_len: int = 4096
    scores: list[ScoreRequest] = field(default_factory=list)
    branches: list[BranchRequest] = field(default_factory=list)
    samples: list[SampleRequest] = field(default_factory=list)

    def check(self, prompt_token_ids: Sequence[int], room: int) -> None:
        assert 0 < len(prompt_token_ids) <= self.max_model_len - room

    async def score(self, request: ScoreRequest) -> TokenScores:
        self.check(request.prompt_token_ids, 1)
        assert request.first >= 1
        self.scores.append(request)
        return fake_native.score(request)

    async def branch(self, request: BranchRequest) -> Branches:
        self.check(request.prompt_token_ids, 1 + request.num_future_tokens)
        self.branches.append(request)
        return fake_native.branch(request)

    async def sample(self, request: SampleRequest) -> Samples:
        self.check(request.prompt_token_ids, request.max_tokens)
        self.samples.append(request)
        return fake_native.sample(request, seed=0)


def analyst(engine: Engine, max_model_len: int = 4096, template: str | None = None, **writing: Any) -> Analyst:
    loaded = demo_tokenizer()
    tokenizer = replace(loaded, source=replace(loaded.source, chat_template=template))
    return Analyst("m", max_model_len, tokenizer, engine, WritingSettings(**writing), asyncio.Semaphore(1))


def about(document: str, **fields: Any) -> HighlightsQuestion:
    """Ask for the highlights of a document that is the answer to a short one."""
    question = HighlightsQuestion("Hi.", "Shorter", document, 3, False, False, False, False)
    return replace(question, **fields)


def parts_of(
    question: HighlightsQuestion, engine: FakeEngine | None = None, **made: Any
) -> list[tuple[list[dict[str, Any]], Usage]]:
    engine = engine or FakeEngine(made.get("max_model_len", 4096))

    async def read() -> list[tuple[list[dict[str, Any]], Usage]]:
        return [part async for part in analyst(engine, **made).highlights(question)]

    return run(read())


def items_of(question: HighlightsQuestion, engine: FakeEngine | None = None, **made: Any) -> list[dict[str, Any]]:
    return [item for items, _ in parts_of(question, engine, **made) for item in items]


def text_of(ids: Sequence[int]) -> str:
    return demo_tokenizer().exact.decode(list(ids), skip_special_tokens=False)


def composed(text: str) -> str:
    """Return a text as the tokenizer reads it: transformers gives it Qwen's normalizer."""
    return unicodedata.normalize("NFC", text)


def ids_of(text: str) -> list[int]:
    return list(demo_tokenizer().exact.encode(text, add_special_tokens=False).ids)


def assert_whole(items: Sequence[dict[str, Any]], document: str) -> None:
    assert "".join(item["token"] for item in items) == document
    assert [item["start"] for item in items] + [len(document)] == [0, *(item["end"] for item in items)]
    for item in items:
        assert 0 <= item["token_loss"] < math.inf
        assert len(item["topk_tokens"]) == 3
        assert item["most_likely_token"] == item["topk_tokens"][0]


@given(document=documents)
@settings(max_examples=40)
def test_the_items_of_a_document_join_to_it_streamed_or_not(document: str) -> None:
    question = about(document, with_detail=True)
    whole = items_of(question)
    assert "".join(item["token"] for item in whole) == document
    assert items_of(replace(question, is_stream=True), stream_first_tokens=2) == whole


def test_a_document_is_scored_after_its_chat_in_one_call() -> None:
    engine = FakeEngine()
    ((items, usage),) = parts_of(about(SIX_SCRIPTS), engine)
    assert_whole(items, SIX_SCRIPTS)
    (request,) = engine.scores
    before, after = request.prompt_token_ids[: request.first], request.prompt_token_ids[request.first :]
    assert text_of(before) == "<|im_start|>user\nShorter\n\nHi.<|im_end|>\n<|im_start|>assistant\n"
    assert after.tolist() == ids_of(SIX_SCRIPTS)
    assert (request.num_alternatives, request.with_next) == (3, False)
    assert usage == Usage(len(request.prompt_token_ids), 1)


def test_a_loss_is_that_of_the_engines_numbers() -> None:
    engine = FakeEngine()
    (item,) = items_of(about(" fox", with_detail=True), engine)
    scores = fake_native.score(engine.scores[0])
    assert item["token_loss"] == -scores.logprobs[0]
    assert item["topk_tokens"] == [demo_tokenizer().texts.text(token_id) for token_id in scores.token_ids[1:]]
    assert item["rank"] == scores.ranks[0]


def test_streamed_parts_double_and_each_is_given_all_before_it() -> None:
    engine, document = FakeEngine(), " the" * 100
    parts = parts_of(about(document, is_stream=True), engine, stream_first_tokens=10)
    assert [len(items) for items, _ in parts] == [10, 20, 40, 30]
    longest = engine.scores[-1].prompt_token_ids
    for request in engine.scores:
        assert request.prompt_token_ids == longest[: len(request.prompt_token_ids)]
    assert [request.first - engine.scores[0].first for request in engine.scores] == [0, 10, 30, 70]


def test_offsets_may_be_javascripts() -> None:
    items = items_of(about(SIX_SCRIPTS, in_utf16=True, is_stream=True), stream_first_tokens=3)
    units = SIX_SCRIPTS.encode("utf-16-le")
    assert [item["start"] for item in items] + [len(units) // 2] == [0, *(item["end"] for item in items)]
    for item in items:
        assert units[2 * item["start"] : 2 * item["end"]].decode("utf-16-le") == item["token"]


@pytest.mark.parametrize("fields", [{}, {"is_stream": True}, {"in_windows": True}])
def test_an_empty_document_has_no_items_and_costs_nothing(fields: dict[str, bool]) -> None:
    engine = FakeEngine()
    assert parts_of(about("", **fields), engine) == []
    assert not engine.scores


def num_prefix_tokens(doc: str = "Hi.") -> int:
    return len(ids_of(f"<|im_start|>user\nShorter\n\n{doc}<|im_end|>\n<|im_start|>assistant\n"))


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_document_may_fill_the_window_but_for_the_token_that_an_engine_makes(is_stream: bool) -> None:
    fits = WINDOW - 1 - num_prefix_tokens()
    assert_whole(items_of(about(" the" * fits, is_stream=is_stream), max_model_len=WINDOW), " the" * fits)
    engine = FakeEngine()
    with pytest.raises(ContextLengthError, match=rf"200 tokens with .*`m` is {WINDOW} tokens.*`window: true`"):
        items_of(about(" the" * (fits + 1), is_stream=is_stream), engine, max_model_len=WINDOW)
    assert not engine.scores


def test_windows_are_for_what_does_not_fit() -> None:
    fits = WINDOW - 1 - num_prefix_tokens()
    assert len(parts_of(about(" the" * fits, in_windows=True), max_model_len=WINDOW)) == 1
    assert len(parts_of(about(" the" * (fits + 1), in_windows=True), max_model_len=WINDOW)) == 2


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("document", [LONG, SIX_SCRIPTS * 20, "🦊" * 300], ids=["words", "scripts", "emoji"])
def test_a_document_beyond_the_window_is_scored_in_parts_after_the_same_chat(document: str, is_stream: bool) -> None:
    engine = FakeEngine(WINDOW)
    question = about(document, in_windows=True, is_stream=is_stream)
    parts = parts_of(question, engine, max_model_len=WINDOW)
    assert len(parts) > 2
    assert_whole([item for items, _ in parts for item in items], document)
    prefix = engine.scores[0].prompt_token_ids[: engine.scores[0].first]
    assert len(prefix) == num_prefix_tokens()
    position = 0
    for request, (items, _) in zip(engine.scores, parts, strict=True):
        assert request.prompt_token_ids[: len(prefix)] == prefix
        context = text_of(request.prompt_token_ids[len(prefix) : request.first])
        assert composed(document[:position]).endswith(context), "context is what stands just before"
        assert bool(context) == (position > 0)
        position = items[-1]["end"]


@pytest.mark.parametrize("is_stream", [False, True])
def test_beside_a_doc_beyond_the_window_each_part_follows_its_passage(is_stream: bool) -> None:
    engine, document = FakeEngine(WINDOW), " the river" * 200
    parts = parts_of(about(document, doc=LONG, in_windows=True, is_stream=is_stream), engine, max_model_len=WINDOW)
    assert_whole([item for items, _ in parts for item in items], document)
    for request, (items, _) in zip(engine.scores, parts, strict=True):
        before, _, after = text_of(request.prompt_token_ids[: request.first]).partition("<|im_end|>")
        found = before.removeprefix("<|im_start|>user\nShorter\n\n")
        assert found
        assert found in LONG
        assert after.startswith("\n<|im_start|>assistant\n")
        place = (LONG.index(found) + len(found) / 2) / len(LONG)
        assert place == pytest.approx((items[0]["start"] + items[-1]["end"]) / 2 / len(document), abs=0.05)


def test_a_short_document_beside_a_doc_beyond_the_window() -> None:
    engine = FakeEngine(WINDOW)
    assert_whole(items_of(about("Short.", doc=LONG, in_windows=True), engine, max_model_len=WINDOW), "Short.")
    (request,) = engine.scores
    assert len(request.prompt_token_ids) > WINDOW * 0.8, "as much of the doc as fits"


@given(st.integers(20, 120), st.sampled_from([LONG, "🦊" * 200, "a", "", SIX_SCRIPTS * 9]), documents)
@settings(max_examples=40)
def test_whatever_the_window_a_document_is_whole_or_refused(max_model_len: int, doc: str, document: str) -> None:
    question = about(document + SIX_SCRIPTS, doc=doc, in_windows=True)
    with contextlib.suppress(ContextLengthError):
        assert_whole(items_of(question, max_model_len=max_model_len), question.updated_doc)


def test_a_prompt_that_leaves_no_room_is_refused_even_in_windows() -> None:
    engine = FakeEngine(WINDOW)
    for doc in ("", "Hi.", LONG):
        with pytest.raises(ContextLengthError, match="too little room"):
            items_of(about("Short.", prompt=LONG, doc=doc, in_windows=True), engine, max_model_len=WINDOW)
    assert not engine.scores


def test_a_document_that_nothing_comes_before_is_refused() -> None:
    """The likelihood of a first token is nothing that a model knows."""
    with pytest.raises(InvalidRequestError, match="nothing before the document"):
        items_of(about("Hi."), template="{{ messages[-1].content }}")


@dataclass
class LostEngine(FakeEngine):
    """Answers so many calls."""

    answers: int = 1

    async def score(self, request: ScoreRequest) -> TokenScores:
        if len(self.scores) == self.answers:
            raise EngineUnavailableError("lost")
        return await super().score(request)


def test_what_was_scored_before_an_engine_is_lost_is_not_lost() -> None:
    found: list[str] = []

    async def read() -> None:
        question = about(" the" * 100, is_stream=True)
        async for items, _ in analyst(LostEngine(answers=2), stream_first_tokens=10).highlights(question):
            found.extend(item["token"] for item in items)

    with pytest.raises(EngineUnavailableError, match="lost"):
        run(read())
    assert found == [" the"] * 30


def continuations(
    engine: Engine, messages: Sequence[MessageText] = BEGUN, k: int = 5, future: int = 1, **made: Any
) -> list[dict[str, Any]]:
    question = BranchesQuestion(tuple(messages), k, future, only_texts=False)
    body, _ = run(analyst(engine, **made).branches(question))
    assert list(body) == ["continuations"]
    found: list[dict[str, Any]] = body["continuations"]
    return found


@pytest.mark.parametrize(("k", "future"), [(1, 0), (20, 0), (5, 1), (20, 8)])
@pytest.mark.parametrize("messages", [BEGUN, [USER], [("user", "")], [*BEGUN, USER]])
def test_every_branch_has_text_and_the_likeliest_is_first(messages: Sequence[MessageText], k: int, future: int) -> None:
    found = continuations(FakeEngine(), messages, k, future)
    assert len({one["token_id"] for one in found}) == k
    assert [one["logprob"] for one in found] == sorted((one["logprob"] for one in found), reverse=True)
    special = {text_of([token_id]) for token_id in demo_tokenizer().texts.special_ids}
    for one in found:
        assert one["doc_text"]
        assert "\ufffd" not in one["doc_text"]
        assert not any(text in one["doc_text"] for text in special)
        assert one["logprob"] <= 0
        assert one["token_id"] not in demo_tokenizer().texts.special_ids


def test_branches_continue_the_assistants_message_or_begin_its_turn() -> None:
    engine = FakeEngine()
    continuations(engine, [USER, ("assistant", " Once ")])
    continuations(engine, [USER])
    turn = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert [text_of(request.prompt_token_ids) for request in engine.branches] == [turn + " Once ", turn]


def to_id(name: str) -> int:
    token_id = demo_tokenizer().exact.token_to_id(name)
    assert token_id is not None
    return token_id


FOX, RIVER, HOUSE, END, CALL = map(to_id, ("Ġfox", "Ġriver", "Ġhouse", "<|im_end|>", "<tool_call>"))
PARTIAL = sorted(demo_tokenizer().texts.partial_ids)
NOBODY = 10**6
"""An id that no token has: without text."""


@dataclass
class ListedEngine(FakeEngine):
    """Offers tokens in this order, each less likely than the one before by `step_nats`, followed by `future`."""

    offers: Sequence[int] = ()
    future: int = FOX
    first_logprob: float = -1.0
    step_nats: float = 1.0

    async def branch(self, request: BranchRequest) -> Branches:
        self.branches.append(request)
        likely = [(token_id, self.first_logprob - rank * self.step_nats) for rank, token_id in enumerate(self.offers)]
        allowed = [pair for pair in likely if pair[0] not in request.skip_token_ids][: request.num_branches]
        future = array("i", [self.future] * request.num_future_tokens)
        branches = [Branch(token_id, logprob, future) for token_id, logprob in allowed]
        return Branches(tuple(branches), Usage(10, 1))


def texts_of(engine: ListedEngine, k: int, future: int) -> list[str]:
    return [one["doc_text"] for one in continuations(engine, k=k, future=future)]


def test_without_future_tokens_a_branch_is_one_token_that_has_text() -> None:
    engine = ListedEngine(offers=[END, *PARTIAL[:5], FOX, PARTIAL[5], RIVER, HOUSE])
    assert texts_of(engine, k=2, future=0) == [" fox", " river"]
    assert len(engine.branches) == 1, "the engine is told what to pass over"


def test_a_part_of_a_character_is_a_branch_when_what_follows_has_text() -> None:
    assert texts_of(ListedEngine(offers=[END, PARTIAL[0], RIVER]), k=2, future=1) == [" fox", " river fox"]
    fox = ids_of("🦊")
    assert texts_of(ListedEngine(offers=fox[:1], future=FOX), k=1, future=0) == []


def test_special_tokens_that_follow_are_no_text() -> None:
    assert texts_of(ListedEngine(offers=[FOX], future=END), k=1, future=3) == [" fox"]


def test_added_tokens_that_are_not_special_are_text() -> None:
    assert texts_of(ListedEngine(offers=[CALL, FOX], future=RIVER), k=2, future=1) == [
        "<tool_call> river",
        " fox river",
    ]


def test_for_branches_without_text_others_are_asked_for() -> None:
    engine = ListedEngine(offers=[*PARTIAL[:3], FOX, RIVER, HOUSE], future=PARTIAL[0])
    found = continuations(engine, k=3, future=1)
    assert [one["doc_text"] for one in found] == [" fox", " river", " house"]
    assert [one["logprob"] for one in found] == [-4.0, -5.0, -6.0]
    assert [request.num_branches for request in engine.branches] == [3, 3]
    assert set(PARTIAL[:3]) <= engine.branches[1].skip_token_ids


def test_branches_of_all_rounds_count_and_stand_in_one_order() -> None:
    engine = ListedEngine(offers=[FOX, NOBODY, RIVER])
    question = BranchesQuestion(BEGUN, 2, 0, only_texts=False)
    body, usage = run(analyst(engine).branches(question))
    assert [one["doc_text"] for one in body["continuations"]] == [" fox", " river"]
    assert [request.num_branches for request in engine.branches] == [2, 1]
    assert usage == Usage(20, 2)


def test_what_is_found_later_may_be_likelier() -> None:
    """Each round is computed anew, and no two computations of a model are quite the same."""
    assert texts_of(ListedEngine(offers=[FOX, NOBODY, RIVER], step_nats=-0.01), k=2, future=0) == [" river", " fox"]


def test_an_engine_that_knows_no_more_is_not_asked_again() -> None:
    engine = ListedEngine(offers=[FOX, NOBODY])
    assert texts_of(engine, k=3, future=0) == [" fox"]
    assert len(engine.branches) == 1


def test_there_is_an_end_to_asking() -> None:
    engine = ListedEngine(offers=range(NOBODY, NOBODY + 100))
    assert texts_of(engine, k=2, future=0) == []
    assert len(engine.branches) == MAX_ROUNDS


@pytest.mark.parametrize("logprob", [1e-7, 0.0, -0.0])
def test_a_certain_branch_has_log_probability_zero(logprob: float) -> None:
    (found,) = continuations(ListedEngine(offers=[FOX], first_logprob=logprob), k=1, future=0)
    assert math.copysign(1, found["logprob"]) == 1
    assert found["logprob"] == 0


def test_the_next_tokens_are_only_texts() -> None:
    engine = ListedEngine(offers=[FOX, RIVER], future=HOUSE)
    body, _ = run(analyst(engine).branches(BranchesQuestion(BEGUN, 2, 1, only_texts=True)))
    assert body == {"next_tokens": [" fox house", " river house"]}


@pytest.mark.parametrize("future", [0, 3])
def test_branches_need_room_for_what_follows(future: int) -> None:
    answer = ("assistant", " the" * (WINDOW - 1 - future - len(ids_of(text_of_chat(USER)))))
    assert continuations(FakeEngine(WINDOW), [USER, answer], future=future, max_model_len=WINDOW)
    longer = ("assistant", answer[1] + " the")
    with pytest.raises(ContextLengthError, match=rf"`m` is {WINDOW} tokens. {future + 1} more are needed"):
        continuations(FakeEngine(WINDOW), [USER, longer], future=future, max_model_len=WINDOW)


def text_of_chat(*messages: MessageText) -> str:
    turns = [f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def entries_of(engine: FakeEngine, messages: Sequence[MessageText], k: int = 3, **made: Any) -> list[dict[str, Any]]:
    body, usage = run(analyst(engine, **made).logprobs(LogprobsQuestion(tuple(messages), k)))
    assert list(body) == ["logprobs"]
    assert usage.prompt_tokens == len(engine.scores[0].prompt_token_ids)
    found: list[dict[str, Any]] = body["logprobs"]
    return found


@pytest.mark.parametrize("messages", [BEGUN, [USER], [("user", "")]])
def test_each_token_of_a_chat_has_the_log_probabilities_it_came_from(messages: Sequence[MessageText]) -> None:
    engine = FakeEngine()
    first, *others, after = entries_of(engine, messages)
    (request,) = engine.scores
    assert (request.first, request.num_alternatives, request.with_next) == (1, 3, True)
    assert "".join(entry["token"] for entry in [first, *others]) == text_of(request.prompt_token_ids)
    assert first["logprobs"] == {}
    assert after["token"] is None
    for entry in others:
        assert entry["token"] in entry["logprobs"]
        assert len(entry["logprobs"]) in (3, 4)
    assert len(after["logprobs"]) == 3
    for entry in [*others, after]:
        logprobs = list(entry["logprobs"].values())
        assert logprobs == sorted(logprobs, reverse=True)
        assert -math.inf < logprobs[-1] <= logprobs[0] <= 0


def test_the_log_probabilities_of_a_chat_beyond_the_window_are_refused() -> None:
    engine = FakeEngine(WINDOW)
    with pytest.raises(ContextLengthError, match=rf"`m` is {WINDOW} tokens"):
        entries_of(engine, [("user", LONG)], max_model_len=WINDOW)
    assert not engine.scores


def test_a_chat_that_is_no_text_to_the_model_is_refused() -> None:
    engine = FakeEngine()
    with pytest.raises(InvalidRequestError, match="no text to the model"):
        entries_of(engine, [USER], template="{{ '' }}")
    with pytest.raises(InvalidRequestError, match="no text to the model"):
        continuations(engine, [USER], template="{{ '' }}")


def revised(engine: FakeEngine, n: int = 3, max_tokens: int = 12, **made: Any) -> list[str]:
    body, usage = run(analyst(engine, **made).revisions(RevisionsQuestion("The fox.", "Longer", n, max_tokens)))
    assert list(body) == ["revised_docs"]
    assert all(list(one) == ["doc_text"] for one in body["revised_docs"])
    assert usage.completion_tokens == sum(request.n * request.max_tokens for request in engine.samples)
    return [one["doc_text"] for one in body["revised_docs"]]


def test_revisions_are_sampled_from_a_turn_of_the_assistant() -> None:
    engine = FakeEngine()
    texts = revised(engine)
    assert len(texts) == len(set(texts)) == 3
    (request,) = engine.samples
    assert text_of(request.prompt_token_ids) == text_of_chat(("user", "Longer\n\nThe fox."))
    assert (request.n, request.max_tokens) == (3, 12)
    assert (request.temperature, request.top_k, request.top_p) == (0.5, 50, 0.95)


def test_a_revision_is_no_longer_than_what_fits() -> None:
    num_prompt_tokens = len(ids_of(text_of_chat(("user", "Longer\n\nThe fox."))))
    engine = FakeEngine(num_prompt_tokens + 5)
    revised(engine, max_tokens=1024, max_model_len=num_prompt_tokens + 5)
    assert engine.samples[0].max_tokens == 5
    with pytest.raises(ContextLengthError):
        revised(FakeEngine(), max_model_len=num_prompt_tokens)


class SilentEngine(FakeEngine):
    async def sample(self, request: SampleRequest) -> Samples:
        self.samples.append(replace(request, n=0))
        return Samples((array("i"), array("i", [END]), array("i", [FOX, END])), Usage(1, 0))


def test_a_revision_may_be_empty_and_its_end_is_no_text() -> None:
    assert revised(SilentEngine()) == ["", "", " fox"]
