"""vLLM's behaviour that only a real model has, through the whole graph, with the official client."""

import json
from typing import Any

import httpx
import pytest

from tests.cases import assert_openai_error
from tests.harness import PLANES, Server

planes = PLANES

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK_WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
NAMED: Any = {"type": "function", "function": {"name": "get_weather"}}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def chat(server: Server, text: str, **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return server.openai.chat.completions.create(model="demo", messages=messages, **fields)


def test_the_demo_model_answers(server: Server) -> None:
    assert chat(server, "Say hi in French, one word.", temperature=0).choices[0].message.content == "Bonjour"
    assert "Paris" in chat(server, "What is the capital of France?", temperature=0).choices[0].message.content


@pytest.mark.parametrize(("choice", "reason"), [("auto", "tool_calls"), ("required", "tool_calls"), (NAMED, "stop")])
def test_tool_call(server: Server, choice: Any, reason: str) -> None:
    answer = server.openai.chat.completions.create(
        model="demo", messages=ASK_WEATHER, tools=[WEATHER], tool_choice=choice, temperature=0
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert answer.choices[0].finish_reason == reason


def test_streamed_tool_call(server: Server) -> None:
    stream = server.openai.chat.completions.create(
        model="demo", messages=ASK_WEATHER, tools=[WEATHER], temperature=0, stream=True
    )
    deltas = [c.choices[0].delta.tool_calls[0] for c in stream if c.choices and c.choices[0].delta.tool_calls]
    assert [d.function.name for d in deltas if d.function and d.function.name] == ["get_weather"]
    arguments = "".join(d.function.arguments or "" for d in deltas if d.function)
    assert json.loads(arguments) == {"city": "Paris"}


def test_tool_choice_none_calls_nothing(server: Server) -> None:
    answer = server.openai.chat.completions.create(
        model="demo", messages=ASK_WEATHER, tools=[WEATHER], tool_choice="none", max_tokens=20
    )
    assert not answer.choices[0].message.tool_calls


def test_json_schema(server: Server) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    content = chat(server, "Give me a JSON object with the keys name and age.", response_format=form, temperature=0)
    person = json.loads(content.choices[0].message.content)
    assert isinstance(person["name"], str)
    assert isinstance(person["age"], int)


def test_structured_outputs_choice(server: Server) -> None:
    extra = {"structured_outputs": {"choice": ["red", "blue"]}}
    for seed in range(3):
        assert chat(server, "Which colour?", extra_body=extra, seed=seed).choices[0].message.content in ("red", "blue")


def test_logprobs(server: Server) -> None:
    answer = chat(server, "Hello!", logprobs=True, top_logprobs=3, max_tokens=4)
    for token in answer.choices[0].logprobs.content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3


def test_a_plausible_word_is_likelier_than_an_implausible_one(server: Server) -> None:
    def loss(word: str) -> float:
        text = f"Once upon a time, a small fox named Alice lived in a {word}"
        echo = server.openai.completions.create(model="demo", prompt=text, echo=True, logprobs=1, max_tokens=1)
        logprobs = echo.choices[0].logprobs
        assert logprobs is not None
        assert logprobs.token_logprobs is not None
        count = server.http.post("/tokenize", json={"model": "demo", "prompt": f" {word}"}).json()["count"]
        return -sum(logprobs.token_logprobs[-1 - count : -1])

    assert loss("forest") + 3 < loss("decorator")


def test_echo_returns_the_prompt(server: Server) -> None:
    answer = server.openai.completions.create(model="demo", prompt="The fox", echo=True, max_tokens=3)
    assert answer.choices[0].text.startswith("The fox")


def test_stop_text_ends_the_answer(server: Server) -> None:
    answer = chat(server, "Tell me a story about a fox.", stop=["."], temperature=0)
    assert "." not in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_max_tokens_absent_is_uncapped(server: Server) -> None:
    body = {"model": "demo", "prompt": "Once upon", "ignore_eos": True, "stream": False}
    whole = server.http.post("/v1/completions", json=body, timeout=120).json()
    assert whole["usage"]["total_tokens"] == 4096
    chat_body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "ignore_eos": True}
    assert server.http.post("/v1/chat/completions", json=chat_body, timeout=120).json()["usage"]["total_tokens"] == 4096


def test_max_tokens_over_the_window_is_400_with_both_numbers(server: Server) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 99999}
    response = server.http.post("/v1/chat/completions", json=body)
    assert_openai_error(response, 400)
    assert "99999" in response.text
    assert "4096" in response.text


def test_responses(server: Server) -> None:
    assert server.openai.responses.create(model="demo", input="Hello!").output_text
    kinds = [event.type for event in server.openai.responses.create(model="demo", input="Hello!", stream=True)]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


def test_messages(server: Server) -> None:
    body = {"model": "demo", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello!"}]}
    assert server.http.post("/v1/messages", json=body).json()["content"][0]["text"]
    assert server.http.post("/v1/messages/count_tokens", json=body).json()["input_tokens"] > 0


def test_render_shows_the_prompt(server: Server) -> None:
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hello!"}]}
    rendered = server.http.post("/v1/chat/completions/render", json=body)
    ids = rendered.json()["token_ids"]
    text = server.http.post("/detokenize", json={"model": "demo", "tokens": ids}).json()["prompt"]
    assert text == "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n"


def test_a_bad_schema_is_an_error_and_hurts_nobody(server: Server) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "response_format": form}
    assert_openai_error(server.http.post("/v1/chat/completions", json=body), 400)
    assert server.http.get("/health").status_code == 200
    assert chat(server, "Hello!").choices[0].message.content


def test_health_has_an_empty_body(server: Server) -> None:
    response: httpx.Response = server.http.get("/health")
    assert (response.status_code, response.content) == (200, b"")
