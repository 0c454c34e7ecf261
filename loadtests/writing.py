"""Writing tools against the alternatives: a transformers forward pass, and a bare vLLM server over HTTP.

    python -m loadtests.writing GRAPH_URL BARE_URL MODEL_FOLDER [ROUNDS]

GRAPH_URL is this project's server, BARE_URL one that `python -m vllm.entrypoints.openai.api_server` started with the
same model; both serve it under the name `demo` and do nothing else meanwhile. Each figure is the median over ROUNDS
rounds in which the contenders take turns, each time with another document, so that no cache helps.
"""

import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import httpx

MODEL = "demo"
K = 5
DOCUMENT_TOKENS, PROMPT_TOKENS = 500, 1000
PROMPT = "Rewrite this document to be more concise."
WORDS = "fox house river story small city quiet morning tree bread market letter garden window friend road".split()
STREAM_TOKENS, NUM_STREAMS, NUM_WRITERS = 256, 4, 2

Contender = Callable[[str], float]


class Clients:
    """Both servers, and the model's tokens as the bare one makes them."""

    def __init__(self, graph_url: str, bare_url: str) -> None:
        self.graph = httpx.Client(base_url=graph_url, timeout=120)
        self.bare = httpx.Client(base_url=bare_url, timeout=120)

    def ids(self, text: str) -> list[int]:
        return list(answer(self.bare, "/tokenize", {"model": MODEL, "prompt": text})["tokens"])

    def document(self, tokens: int) -> str:
        """Return words that nobody has sent before, of about so many tokens."""
        words: list[str] = []
        while len(self.ids(" ".join(words))) < tokens:
            words += random.choices(WORDS, k=25)
        return " ".join(words)


def answer(client: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    response = client.post(path, json=body)
    response.raise_for_status()
    return response.json()


def chat_text(doc: str) -> str:
    """Render the demo model's chat by hand: a bare server has no route that scores one."""
    user = f"<|im_start|>user\n{PROMPT}\n\n{doc}<|im_end|>\n"
    return f"{user}<|im_start|>assistant\n{doc}"


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def highlights(clients: Clients, folder: str) -> dict[str, Contender]:
    """Return contenders that score one document and say how long it took, in seconds."""

    def graph(doc: str) -> float:
        return timed(lambda: answer(clients.graph, "/api/highlights", {"model": MODEL, "doc": doc, "k": K}))

    def bare(doc: str) -> float:
        body = {"model": MODEL, "prompt": chat_text(doc), "max_tokens": 1, "prompt_logprobs": K}
        return timed(lambda: answer(clients.bare, "/v1/completions", body))

    def echo(doc: str) -> float:
        body = {"model": MODEL, "prompt": chat_text(doc), "max_tokens": 1, "echo": True, "logprobs": K}
        return timed(lambda: answer(clients.bare, "/v1/completions", body))

    forward = {f"transformers {dtype}": forward_pass(clients, folder, dtype) for dtype in ("float32", "bfloat16")}
    return {"graph": graph, "bare prompt_logprobs": bare, "bare echo": echo, **forward}


def forward_pass(clients: Clients, folder: str, dtype: str) -> Contender:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    model.eval()

    def score(doc: str) -> float:
        ids = torch.tensor([clients.ids(chat_text(doc))])

        def run() -> object:
            with torch.inference_mode():
                logprobs = model(ids).logits[0, :-1].float().log_softmax(-1)
                return logprobs.gather(1, ids[0, 1:, None]), logprobs.topk(K)

        return timed(run)

    return score


def continuations(clients: Clients) -> dict[str, Contender]:
    def graph(text: str) -> float:
        body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "n_branch_tokens": K}
        return timed(lambda: answer(clients.graph, "/api/continue_messages", body))

    def two_calls(text: str) -> float:
        """Ask for the likeliest next tokens, then complete the prompt with each of them in one batch."""
        chat = f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"

        def run() -> None:
            body = {"model": MODEL, "prompt": chat, "max_tokens": 1, "logprobs": K, "temperature": 0}
            likely = answer(clients.bare, "/v1/completions", body)["choices"][0]["logprobs"]["top_logprobs"][0]
            prompts = [chat + token for token in likely]
            answer(clients.bare, "/v1/completions", {"model": MODEL, "prompt": prompts, "max_tokens": 1})

        return timed(run)

    return {"graph": graph, "bare, two calls": two_calls}


def compare(name: str, contenders: dict[str, Contender], make: Callable[[], str], rounds: int, tokens: int) -> None:
    times: dict[str, list[float]] = {contender: [] for contender in contenders}
    for number in range(-2, rounds):  # the first two warm up
        for contender, run in contenders.items():
            took_s = run(make())
            if number >= 0:
                times[contender].append(took_s)
    graph_s = statistics.median(times["graph"])
    for contender, all_s in times.items():
        median_s = statistics.median(all_s)
        spread = f"{min(all_s) * 1e3:.1f}-{max(all_s) * 1e3:.1f}"
        print(
            f"{name}: {contender:24} {median_s * 1e3:7.1f} ms ({spread}), {tokens / median_s:6.0f} tokens/s,"
            f" graph/{contender} speed {median_s / graph_s:.2f}"
        )


def inter_token_s(client: httpx.Client) -> list[float]:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Tell me a story about a fox."}],
        "max_tokens": STREAM_TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    arrivals = []
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        for _ in response.iter_raw():
            arrivals.append(time.perf_counter())
    return [later - earlier for earlier, later in pairwise(arrivals[1:])]


@contextmanager
def writers(clients: Clients) -> Iterator[list[int]]:
    """Score documents until the block ends; the list counts them."""
    done, scored = threading.Event(), [0]
    documents = [clients.document(DOCUMENT_TOKENS) for _ in range(8)]

    def write() -> None:
        with httpx.Client(base_url=clients.graph.base_url, timeout=120) as client:
            while not done.is_set():
                answer(client, "/api/highlights", {"model": MODEL, "doc": random.choice(documents), "k": K})
                scored[0] += 1

    with ThreadPoolExecutor(NUM_WRITERS) as pool:
        for _ in range(NUM_WRITERS):
            pool.submit(write)
        try:
            yield scored
        finally:
            done.set()


def stalls(clients: Clients, rounds: int) -> None:
    """Print the inter-token times of chat streams with and without highlights beside them, in turns."""
    quiet: list[float] = []
    busy: list[float] = []
    documents = 0
    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        for _ in range(rounds):
            quiet += streams(clients, pool)
            with writers(clients) as scored:
                busy += streams(clients, pool)
            documents += scored[0]
    for name, times in (("alone", quiet), (f"beside {documents} highlights", busy)):
        p50, p95, p99 = (statistics.quantiles(times, n=100)[percent - 1] * 1e3 for percent in (50, 95, 99))
        print(f"inter-token time of {NUM_STREAMS} streams {name}: p50 {p50:.1f} p95 {p95:.1f} p99 {p99:.1f} ms")


def streams(clients: Clients, pool: ThreadPoolExecutor) -> list[float]:
    futures = [pool.submit(inter_token_s, clients.graph) for _ in range(NUM_STREAMS)]
    return [time_s for future in futures for time_s in future.result()]


def main(graph_url: str, bare_url: str, folder: str, rounds: str = "15") -> None:
    clients = Clients(graph_url, bare_url)
    with_chat = len(clients.ids(chat_text(clients.document(DOCUMENT_TOKENS))))
    print(f"a document of {DOCUMENT_TOKENS} tokens is {with_chat} with its chat; tokens/s are the document's")
    document = lambda: clients.document(DOCUMENT_TOKENS)  # noqa: E731
    compare("highlights", highlights(clients, folder), document, int(rounds), DOCUMENT_TOKENS)
    prompt = lambda: clients.document(PROMPT_TOKENS)  # noqa: E731
    compare("continuations", continuations(clients), prompt, int(rounds), PROMPT_TOKENS)
    stalls(clients, max(1, int(rounds) // 5))


if __name__ == "__main__":
    main(*sys.argv[1:])
