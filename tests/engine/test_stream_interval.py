"""Streams of real vLLM that join tokens, since others run beside them: nothing is lost, nothing comes twice."""

import copy
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.cases import QUESTION
from tests.engine.test_openai import ASK_WEATHER, WEATHER
from tests.harness import Config, Server, application, eventually

MODEL = "joining"
TOKENS = 64
BESIDE = 4
"""Streams that run beside those that are looked at."""
JOINING = {"min_streams": 3, "min_updates_per_s": 1, "max_interval_tokens": 8}
"""With so few updates, tokens are joined on the slowest machine."""


@pytest.fixture(scope="module")
def joining(server: Server) -> Iterator[Server]:
    """Serve a second model, which joins tokens as soon as a few streams run."""
    before = server.config
    server.deploy(with_joining_model(before))
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.deploy(before)
    eventually(lambda: not server.replicas(f"model-{MODEL}"), "the model is gone")


def with_joining_model(config: Config) -> Config:
    config = copy.deepcopy(config)
    model = copy.deepcopy(application(config, "model-demo"))
    model["name"] = f"model-{MODEL}"
    model["args"] |= {"name": MODEL, "streaming": JOINING}
    if "route_prefix" in model and model["route_prefix"] not in (None, "/"):
        model["route_prefix"] = f"/models/{MODEL}"
    config["applications"].append(model)
    return config


@pytest.fixture(scope="module")
def load(joining: Server) -> Iterator[None]:
    """Keep some streams under way, until tokens are joined and as long as tests run."""
    end = threading.Event()

    def stream() -> None:
        while not end.is_set():
            body = {"messages": QUESTION, "max_tokens": 2000, "ignore_eos": True}
            for _ in events(joining, "/v1/chat/completions", body):
                if end.is_set():
                    break

    with ThreadPoolExecutor(BESIDE) as pool:
        running = [pool.submit(stream) for _ in range(BESIDE)]
        try:
            eventually(lambda: len(texts(chat(joining))) < TOKENS / 3, "streams join tokens")
            yield
        finally:
            end.set()
    for each in running:
        each.result()


def events(server: Server, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is in the events of a stream."""
    with server.http.stream("POST", path, json={"model": MODEL, "stream": True, **body}) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: {"):
                yield json.loads(line.removeprefix("data: "))


def chat(server: Server, **fields: Any) -> list[dict[str, Any]]:
    body = {"messages": QUESTION, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0}
    return list(events(server, "/v1/chat/completions", body | fields))


def choices(chunks: list[dict[str, Any]], index: int = 0) -> list[dict[str, Any]]:
    return [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]


def texts(chunks: list[dict[str, Any]], index: int = 0) -> list[str]:
    return [choice["delta"]["content"] for choice in choices(chunks, index) if choice["delta"].get("content")]


def test_a_stream_alone_has_a_chunk_for_each_token(joining: Server) -> None:
    # Not exactly: vLLM joins what its own event loop is late with.
    assert eventually(lambda: len(texts(chat(joining))) > TOKENS / 2, "a chunk for each token")


@pytest.mark.usefixtures("load")
class TestBesideOthers:
    def test_every_token_has_its_logprob_and_is_counted_once(self, joining: Server) -> None:
        fields = {"logprobs": True, "top_logprobs": 2, "skip_special_tokens": False}
        chunks = chat(joining, **fields, stream_options={"include_usage": True})
        entries = [entry for choice in choices(chunks) for entry in (choice.get("logprobs") or {}).get("content", ())]
        assert len(entries) == chunks[-1]["usage"]["completion_tokens"] == TOKENS
        assert "".join(texts(chunks)) == "".join(entry["token"] for entry in entries)
        assert len(texts(chunks)) < TOKENS / 3

    def test_the_first_token_is_not_held_back(self, joining: Server) -> None:
        chunks = chat(joining, return_token_ids=True)
        sizes = [len(choice["token_ids"]) for choice in choices(chunks) if choice.get("token_ids")]
        assert sizes[0] == 1
        assert sum(sizes) == TOKENS
        assert max(sizes) >= JOINING["max_interval_tokens"]

    def test_a_request_may_say_how_many_tokens_it_wants_joined(self, joining: Server) -> None:
        ask = lambda: len(texts(chat(joining, stream_interval=1))) > TOKENS / 2  # noqa: E731
        assert eventually(ask, "a chunk for each token")

    def test_usage_in_every_chunk_grows_to_the_whole(self, joining: Server) -> None:
        options = {"include_usage": True, "continuous_usage_stats": True}
        counts = [chunk["usage"]["completion_tokens"] for chunk in chat(joining, stream_options=options)]
        assert counts == sorted(counts)
        assert counts[-1] == TOKENS

    def test_each_choice_has_its_own_tokens(self, joining: Server) -> None:
        chunks = chat(joining, n=3, temperature=1, seed=1, logprobs=True, stream_options={"include_usage": True})
        for index in range(3):
            own = choices(chunks, index)
            tokens = [entry["token"] for choice in own for entry in (choice.get("logprobs") or {}).get("content", ())]
            assert len(tokens) == TOKENS
            assert [choice["finish_reason"] for choice in own if choice["finish_reason"]] == ["length"]
        assert chunks[-1]["usage"]["completion_tokens"] == 3 * TOKENS

    def test_a_stop_text_is_not_shown(self, joining: Server) -> None:
        chunks = chat(joining, stop=["e"], ignore_eos=False)
        assert "e" not in "".join(texts(chunks))
        assert choices(chunks)[-1]["finish_reason"] == "stop"

    def test_a_tool_call_comes_whole(self, joining: Server) -> None:
        chunks = chat(joining, messages=ASK_WEATHER, tools=[WEATHER], ignore_eos=False)
        calls = [call for choice in choices(chunks) for call in choice["delta"].get("tool_calls") or ()]
        functions = [call["function"] for call in calls]
        assert [function["name"] for function in functions if function.get("name")] == ["get_weather"]
        assert json.loads("".join(function.get("arguments") or "" for function in functions)) == {"city": "Paris"}

    def test_completions(self, joining: Server) -> None:
        body = {"prompt": "The fox", "max_tokens": TOKENS, "logprobs": 1, "echo": True}
        body |= {"ignore_eos": True, "skip_special_tokens": False}
        found = choices(list(events(joining, "/v1/completions", body)))
        tokens = [token for choice in found for token in choice["logprobs"]["tokens"]]
        text = "".join(choice["text"] for choice in found)
        assert text.startswith("The fox")
        assert "".join(tokens) == text
        offsets = [offset for choice in found for offset in choice["logprobs"]["text_offset"]]
        assert offsets == sorted(offsets)

    def test_responses(self, joining: Server) -> None:
        include = ["message.output_text.logprobs"]
        body = {"input": "Tell me a story.", "max_output_tokens": TOKENS, "include": include, "top_logprobs": 1}
        found = list(events(joining, "/v1/responses", body))
        deltas = [event for event in found if event["type"] == "response.output_text.delta"]
        (done,) = [event for event in found if event["type"] == "response.output_text.done"]
        assert "".join(event["delta"] for event in deltas) == done["text"]
        tokens = [one["token"] for event in deltas for one in event["logprobs"]]
        assert "".join(tokens).removesuffix("<|im_end|>") == done["text"]

    def test_messages(self, joining: Server) -> None:
        body = {"messages": QUESTION, "max_tokens": TOKENS}
        found = list(events(joining, "/v1/messages", body))
        text = "".join(event["delta"].get("text", "") for event in found if event["type"] == "content_block_delta")
        (last,) = [event for event in found if event["type"] == "message_delta"]
        count = joining.http.post("/tokenize", json={"model": MODEL, "prompt": text}).json()["count"]
        assert abs(count - last["usage"]["output_tokens"]) <= 2  # an end of turn is counted, and shows no text

    def test_what_a_request_costs_is_what_it_says(self, joining: Server) -> None:
        body = {"model": MODEL, "messages": QUESTION, "max_tokens": TOKENS, "stream": True}
        body |= {"ignore_eos": True, "stream_options": {"include_usage": True}}
        text, usage = joining.cost(f"model-{MODEL}", "/v1/chat/completions", body)
        (said,) = [json.loads(line[6:])["usage"] for line in text.splitlines() if '"usage":{' in line]
        assert (usage.prompt_tokens, usage.completion_tokens) == (said["prompt_tokens"], said["completion_tokens"])
        assert usage.times is not None
