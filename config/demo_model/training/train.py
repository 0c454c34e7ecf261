"""Train the demo model from text that is on every machine: `make demo-model` (about half an hour on two cores).

Writes weights, tokenizer and configuration into `--output`, and prints what the model card reports: held-out loss and
the share of correct tool calls on tools, names and values that the training data did not hold.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).parent))
from conversations import conversation, exchange, help_entries
from text import corpus
from tools import ToolCase, tool_case, tool_conversation

HERE = Path(__file__).parent.parent
END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TOOL_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>")
VOCABULARY_TOKENS, WINDOW_TOKENS = 4096, 4096
PROMPT_WEIGHT = 0.1
CHAT_SHARE, TOOL_SHARE, IDLE_TOOL_SHARE, CODE_SHARE = 0.66, 0.55, 0.15, 0.1
HELD_OUT_TEXTS = 200
TOOL_KINDS: dict[str, dict[str, bool]] = {
    "known tools, values not seen": {},
    "composed tools, held-out names": {"composed": True, "held_out": True},
    "hand-written tools, held out": {"held_out": True},
    "no tool fits": {"unmatched": True},
}


def train_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer whose digits are single tokens, so that numbers can be copied."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_TOKENS - len(TOOL_TOKENS),
        special_tokens=[END_OF_TEXT, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TOOL_TOKENS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[START, END],
        model_max_length=WINDOW_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = (HERE / "chat_template.jinja").read_text()
    return fast


class Examples:
    """Endless packed training rows: (token ids, loss weights), both of shape (rows, length + 1)."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, prose: list[str], code: list[str], seed: int) -> None:
        self.tokenizer, self.rng, self.help = tokenizer, random.Random(seed), help_entries()
        self.prose, self.code = prose, code
        self.separator = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
        self.start, self.end = (tokenizer.convert_tokens_to_ids(token) for token in (START, END))
        self.assistant = tokenizer.encode("assistant\n", add_special_tokens=False)
        self.ids: list[int] = []
        self.weights: list[float] = []

    def rows(self, rows: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        needed = rows * (length + 1)
        while len(self.ids) < needed:
            ids, weights = self.one()
            self.ids += [*ids, self.separator]
            self.weights += [*weights, 1.0]
        ids, weights = torch.tensor(self.ids[:needed]), torch.tensor(self.weights[:needed])
        del self.ids[:needed], self.weights[:needed]
        return ids.view(rows, -1), weights.view(rows, -1)

    def one(self) -> tuple[list[int], list[float]]:
        if self.rng.random() < CHAT_SHARE:
            return self.chat()
        is_code = self.rng.random() < CODE_SHARE
        text = self.rng.choice(self.code if is_code else self.prose)
        begin = 0 if len(text) < 1500 else self.rng.randrange(len(text) - 1000)
        ids = self.tokenizer.encode(text[begin : begin + 1500], add_special_tokens=False)
        return ids, [1.0] * len(ids)

    def chat(self) -> tuple[list[int], list[float]]:
        tools = None
        if self.rng.random() < TOOL_SHARE:
            messages, tools = tool_conversation(self.rng)
        else:
            messages = conversation(self.rng, self.help)
            if self.rng.random() < IDLE_TOOL_SHARE:
                tools = tool_case(self.rng).tools
        ids = chat_ids(self.tokenizer, messages, tools)
        weights, position = [PROMPT_WEIGHT] * len(ids), 0
        while self.start in ids[position:]:
            position = ids.index(self.start, position) + 1
            if ids[position : position + len(self.assistant)] == self.assistant:
                begin, finish = position + len(self.assistant), ids.index(self.end, position) + 1
                weights[begin:finish] = [1.0] * (finish - begin)
        return ids, weights


def chat_ids(
    tokenizer: PreTrainedTokenizerFast, messages: list, tools: list | None, *, prompt: bool = False
) -> list[int]:
    return tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=prompt, return_dict=False)


def loss_of(model: Qwen2ForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean cross-entropy in nats per token."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(input_ids=ids[:, :-1]).logits
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def optimizers_for(model: Qwen2ForCausalLM) -> list[torch.optim.Optimizer]:
    """Use Muon for the matrices inside the layers and AdamW for embeddings, norms and biases."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.05, momentum=0.95),
        torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(model: Qwen2ForCausalLM, examples: Examples, total_tokens: int) -> None:
    """Train on a number of tokens: short rows first, long ones in the last eighth, so that long prompts work too."""
    optimizers = optimizers_for(model)
    base = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    compiled_loss = torch.compile(loss_of, dynamic=False)
    begin, step, tokens, smooth = time.monotonic(), 0, 0, None
    while tokens < total_tokens:
        done = tokens / total_tokens
        rate = min(1.0, (step + 1) / 60) * min(1.0, (1 - done) / 0.6)
        for optimizer, lr in zip(optimizers, base, strict=True):
            optimizer.param_groups[0]["lr"] = lr * max(rate, 0.01)
        rows, length = (2, 2048) if done > 0.88 else (6, 768)
        loss = compiled_loss(model, *examples.rows(rows, length))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step, tokens = step + 1, tokens + rows * length
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        if step % 50 == 0:
            speed = tokens / (time.monotonic() - begin)
            print(f"{done:4.0%}  step {step}  loss {smooth:.3f} nats  {speed:.0f} tokens/s", flush=True)


@torch.no_grad()
def prose_loss(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> float:
    """Return the mean loss in nats per token on held-out documentation."""
    rows = [torch.tensor([tokenizer.encode(text, add_special_tokens=False)[:512]]) for text in texts]
    return sum(loss_of(model, row, torch.ones(row.shape)).item() for row in rows) / len(rows)


@torch.no_grad()
def answer(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, messages: list, tools: list | None = None
) -> str:
    ids = torch.tensor([chat_ids(tokenizer, messages, tools, prompt=True)])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=80, do_sample=False)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def is_right(case: ToolCase, text: str) -> bool:
    """Say whether the text is the expected call and nothing else; without a call, whether it makes none."""
    if case.call is None:
        return "<tool_call>" not in text
    body = text.strip().removeprefix("<tool_call>").removesuffix("</tool_call>")
    try:
        return bool(json.loads(body) == case.call)
    except ValueError:
        return False


def tool_rate(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int, **kind: bool) -> float:
    """Return the share of questions whose tool call is right in name and every argument."""
    rng = random.Random(20_260)
    cases = [tool_case(rng, **kind) for _ in range(count)]
    asked = ((case, [{"role": "user", "content": case.question}]) for case in cases)
    return sum(is_right(case, answer(model, tokenizer, messages, case.tools)) for case, messages in asked) / count


def report(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, held_out: list[str]) -> None:
    model.eval()
    print(f"held-out documentation: {prose_loss(model, tokenizer, held_out):.2f} nats per token")
    for name, kind in TOOL_KINDS.items():
        print(f"{name}: {tool_rate(model, tokenizer, 100, **kind):.0%} right", flush=True)
    for question in (
        "Say hi in French, one word.",
        "What is the capital of Japan?",
        "Tell me a story about a fox.",
        "Hello!",
    ):
        print(f"{question} -> {answer(model, tokenizer, exchange(question, '')[:1])}")


def save(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in (END, END_OF_TEXT)]
    GenerationConfig(
        eos_token_id=ends, pad_token_id=ends[1], do_sample=True, temperature=0.7, top_p=0.95
    ).save_pretrained(output)


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    ends = [tokenizer.convert_tokens_to_ids(token) for token in (END, END_OF_TEXT)]
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY_TOKENS,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=WINDOW_TOKENS,
            tie_word_embeddings=True,
            eos_token_id=ends[0],
            pad_token_id=ends[1],
            bos_token_id=None,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--tokens", type=int, default=15_000_000, help="tokens to train on")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(os.cpu_count() or 1)
    prose, code = corpus(options.seed)
    held_out, prose = prose[:HELD_OUT_TEXTS], prose[HELD_OUT_TEXTS:]
    rng = random.Random(options.seed)
    chats = ["\n".join(m["content"] for m in conversation(rng, help_entries()[:50])) for _ in range(4000)]
    tool_texts = [json.dumps(tool_conversation(rng)) for _ in range(1500)]
    tokenizer = train_tokenizer(iter([*prose, *code[::8], *chats, *tool_texts]))
    model = make_model(tokenizer)
    print(f"{model.num_parameters() / 1e6:.1f} M parameters, {len(tokenizer)} tokens")
    train(model, Examples(tokenizer, prose, code, options.seed), options.tokens)
    report(model, tokenizer, held_out)
    save(model, tokenizer, options.output)
    print(f"{time.process_time() / 60:.0f} minutes of CPU time")


if __name__ == "__main__":
    main()
