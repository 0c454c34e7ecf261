"""What the real model thinks of texts: held to a forward pass of transformers, and to vLLM's own HTTP routes."""

import copy
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from config.models import PROJECT_ROOT
from tests.harness import Server, application
from tests.writing_cases import BEGUN, CHAT, SIX_SCRIPTS, WritingCases, highlights

TOKENIZER = AutoTokenizer.from_pretrained(PROJECT_ROOT / "config/demo_model")
PROMPT = "Rewrite this document to be more concise."
NEAR_TIE_NATS = 0.25
"""In bfloat16 two tokens that are nearer than this may change places."""
NEAR_TIE_NATS_FLOAT32 = 1e-3
"""In float32, where a sum has another order: far down the ranks tokens are that close."""


class TestVllm(WritingCases):
    pass


@pytest.fixture(scope="module")
def exact_model(server: Server) -> Iterator[str]:
    """Serve the demo model in float32 beside the other one."""
    before = server.config
    config = copy.deepcopy(before)
    exact = copy.deepcopy(application(config, "model-demo"))
    exact["name"], exact["args"]["name"] = "model-exact", "exact"
    exact["args"]["engine_args"]["dtype"] = "float32"
    config["applications"].append(exact)
    server.deploy(config)
    server.wait_until_ready()
    yield "exact"
    server.deploy(before)


@pytest.fixture(scope="module")
def weights() -> Any:
    folder = PROJECT_ROOT / "config/demo_model"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def document() -> str:
    return (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")[:3000] + SIX_SCRIPTS


def forward_pass(server: Server, weights: Any, doc: str) -> tuple[Any, list[int]]:
    """Return transformers' log-probabilities at each of the document's tokens, and the tokens, as vLLM makes them."""
    messages = [{"role": "user", "content": f"{PROMPT}\n\n{doc}"}, {"role": "assistant", "content": doc}]
    body: dict[str, Any] = {"model": "demo", "messages": messages}
    body |= {"add_generation_prompt": False, "continue_final_message": True}
    ids = server.http.post("/tokenize", json=body).json()["tokens"]
    count = server.http.post("/tokenize", json={"model": "demo", "prompt": doc}).json()["count"]
    with torch.inference_mode():
        logits = weights(torch.tensor([ids])).logits[0, -count - 1 : -1]
    return logits.float().log_softmax(-1), ids[-count:]


class Truth:
    """Loss and rank of each item of a document's highlights, from the losses and ranks of its tokens."""

    def __init__(self, server: Server, weights: Any, doc: str, items: list[dict[str, Any]]) -> None:
        self.logprobs, self.ids = forward_pass(server, weights, doc)
        self.own = self.logprobs[torch.arange(len(self.ids)), torch.tensor(self.ids)]
        ranks = ((self.logprobs > self.own[:, None]).sum(-1) + 1).tolist()
        starts = [start for start, _ in TOKENIZER(doc, return_offsets_mapping=True)["offset_mapping"]]
        self.tokens = [
            [index for index, start in enumerate(starts) if item["start"] <= start < item["end"]] for item in items
        ]
        assert [index for group in self.tokens for index in group] == list(range(len(self.ids)))
        self.losses = [-sum(self.own[index].item() for index in group) for group in self.tokens]
        self.ranks = [max(ranks[index] for index in group) for group in self.tokens]

    def assert_ranks(self, items: list[dict[str, Any]], near_nats: float) -> None:
        """Fail when a rank is off by more than there are other tokens so near to an item's own ones."""
        for index, item in enumerate(items):
            own = self.tokens[index]
            near = (self.logprobs[own] - self.own[own][:, None]).abs() < near_nats
            assert abs(item["rank"] - self.ranks[index]) <= int(near.sum().item()) - len(own), item


def test_in_float32_losses_and_ranks_are_those_of_a_forward_pass(
    server: Server, weights: Any, exact_model: str
) -> None:
    doc = document()
    items = highlights(server, exact_model, doc, detail=True)
    truth = Truth(server, weights, doc, items)
    assert [item["token_loss"] for item in items] == pytest.approx(truth.losses, abs=2e-3)
    truth.assert_ranks(items, NEAR_TIE_NATS_FLOAT32)


def test_in_bfloat16_they_are_so_but_for_rounding(server: Server, weights: Any) -> None:
    doc = document()
    items = highlights(server, "demo", doc, detail=True)
    truth = Truth(server, weights, doc, items)
    errors = [
        abs(item["token_loss"] - loss) / len(group)
        for item, loss, group in zip(items, truth.losses, truth.tokens, strict=True)
    ]
    assert statistics.mean(errors) < 0.02
    assert max(errors) < NEAR_TIE_NATS
    truth.assert_ranks(items, NEAR_TIE_NATS)


def test_alternatives_are_the_likeliest_tokens(server: Server, weights: Any, exact_model: str) -> None:
    doc = document()
    items = highlights(server, exact_model, doc, k=3, detail=True)
    truth = Truth(server, weights, doc, items)
    for item, group in zip(items, truth.tokens, strict=True):
        likely = truth.logprobs[group[0]].topk(3)
        assert item["topk_logprobs"] == pytest.approx(likely.values.tolist(), abs=2e-3)
        entropy = -(truth.logprobs[group[0]].exp() * truth.logprobs[group[0]]).sum().item()
        assert item["entropy"] <= entropy + 1e-3


@pytest.mark.parametrize("messages", [CHAT, BEGUN])
def test_a_continuation_is_what_completions_say_of_the_same_tokens(
    server: Server, exact_model: str, messages: list[dict[str, str]]
) -> None:
    asked = {"model": exact_model, "messages": messages, "n_branch_tokens": 6, "n_future_tokens": 4}
    found = server.http.post("/api/continue_messages", json=asked).json()["continuations"]
    is_begun = messages[-1]["role"] == "assistant"
    chat = {"add_generation_prompt": not is_begun, "continue_final_message": is_begun}
    prompt = server.http.post("/tokenize", json={"model": exact_model, "messages": messages, **chat}).json()["tokens"]
    body: dict[str, Any] = {"model": exact_model, "temperature": 0, "return_tokens_as_token_ids": True}
    step = server.http.post("/v1/completions", json={**body, "prompt": prompt, "max_tokens": 1, "logprobs": 20}).json()
    likely = step["choices"][0]["logprobs"]["top_logprobs"][0]
    for one in found:
        assert one["logprob"] == pytest.approx(likely[f"token_id:{one['token_id']}"], abs=2e-3)
        further = {**body, "prompt": [*prompt, one["token_id"]], "max_tokens": 4, "return_token_ids": True}
        ids = server.http.post("/v1/completions", json=further).json()["choices"][0]["token_ids"]
        before, whole = (str(TOKENIZER.decode(all_ids)) for all_ids in (prompt, [*prompt, one["token_id"], *ids]))
        assert before + one["doc_text"] == whole.removesuffix("<|im_end|>")


def test_the_chat_is_the_one_that_vllm_renders(server: Server) -> None:
    body = {"model": "demo", "messages": CHAT}
    ids = server.http.post("/v1/chat/completions/render", json=body).json()["token_ids"]
    entries = server.http.post("/api/logprobs", json=body).json()["logprobs"]
    assert [entry["token"] for entry in entries] == [*(TOKENIZER.decode([token_id]) for token_id in ids), None]


def test_chats_are_served_while_documents_are_scored(server: Server) -> None:
    """A flood of highlights takes its turn: what chats there are is answered, and nobody is refused."""
    with ThreadPoolExecutor(8) as pool:
        scored = [pool.submit(highlights, server, "demo", document()) for _ in range(24)]
        for _ in range(5):
            answer = server.openai.chat.completions.create(model="demo", messages=CHAT, max_tokens=8)  # type: ignore[arg-type]
            assert answer.choices[0].message.content
        assert len({len(future.result()) for future in scored}) == 1
