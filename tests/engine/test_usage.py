"""What real vLLM says that a request cost, and what we count without looking at its answer."""

import copy
import json
from typing import Any

import pytest

from deployments.types import Usage
from tests.harness import Config, Server, application, eventually

MESSAGES = [{"role": "user", "content": "Tell me a story about a fox."}]
OPENAI = ("prompt_tokens", "completion_tokens")
OTHERS = ("input_tokens", "output_tokens")


@pytest.mark.parametrize(
    ("path", "body", "names"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 60, "stop": ["e"]}, OPENAI),
        ("/v1/completions", {"prompt": ["The fox", "A dog is"], "n": 2, "max_tokens": 4}, OPENAI),
        ("/v1/completions", {"prompt": "The fox", "max_tokens": 3, "echo": True, "logprobs": 1}, OPENAI),
        ("/v1/responses", {"input": "Tell me a story.", "max_output_tokens": 6}, OTHERS),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 6}, OTHERS),
    ],
    ids=["stopped", "batch", "echo", "responses", "messages"],
)
def test_every_route_is_counted(server: Server, path: str, body: dict[str, Any], names: tuple[str, str]) -> None:
    text, usage = server.cost("model-demo", path, {"model": "demo", **body})
    said = json.loads(text)["usage"]
    assert usage == Usage(said[names[0]], said[names[1]])
    assert usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("path", "body"), [("/tokenize", {"prompt": "a fox"}), ("/v1/messages/count_tokens", {"messages": MESSAGES})]
)
def test_what_generates_nothing_costs_nothing(server: Server, path: str, body: dict[str, Any]) -> None:
    assert server.cost("model-demo", path, {"model": "demo", **body})[1] == Usage(0, 0)


def with_embeddings(config: Config) -> Config:
    config = copy.deepcopy(config)
    model = copy.deepcopy(application(config, "model-demo"))
    model["name"] = "model-embeddings"
    model["args"]["name"] = "embeddings"
    model["args"]["engine_args"] |= {"runner": "pooling", "convert": "embed"}
    config["applications"].append(model)
    return config


def test_an_embedding_model_is_counted_and_probed(server: Server) -> None:
    before = server.config
    server.deploy(with_embeddings(before))
    try:
        server.wait_until_ready()
        body = {"model": "embeddings", "input": ["a fox", "two dogs and a cat"]}
        text, usage = server.cost("model-embeddings", "/v1/embeddings", body)
        assert usage == Usage(json.loads(text)["usage"]["prompt_tokens"], 0)
        assert usage.prompt_tokens > 0
        answer = server.http.get("/health/deep", params={"model": "embeddings"})
        assert answer.json()["models"]["embeddings"]["ok"] is True
    finally:
        server.deploy(before)
    eventually(lambda: not server.replicas("model-embeddings"), "the embedding model is gone")
