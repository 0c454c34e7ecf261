"""What both engines must do over HTTP: `tests/cluster` runs these against the fake, `tests/engine` against vLLM."""

import json
from typing import Any

import httpx
import openai
import pytest

from tests.harness import Server

QUESTION: Any = [{"role": "user", "content": "Tell me a story about a fox."}]


class EngineCases:
    """Each test takes the fixtures `server` and `model` of the tier that inherits it."""

    def test_chat_streams_role_text_finish_reason_and_usage(self, server: Server, model: str) -> None:
        stream = server.openai.chat.completions.create(
            model=model, messages=QUESTION, stream=True, max_tokens=8, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert chunks[0].choices[0].delta.role == "assistant"
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
        assert len(reasons) == 1
        assert chunks[-1].choices == []
        assert chunks[-1].usage is not None
        assert 1 <= chunks[-1].usage.completion_tokens <= 8
        assert {chunk.model for chunk in chunks} == {model}

    def test_only_pages_that_may_are_shown_an_answer(self, server: Server, model: str) -> None:
        body = {"model": model, "messages": QUESTION, "max_tokens": 2}
        mine = "http://localhost:3000"
        answer = server.http.post("/v1/chat/completions", json=body, headers={"origin": mine})
        assert answer.status_code == 200
        assert answer.headers.get_list("access-control-allow-origin") == [mine]

    def test_stream_ends_with_done(self, server: Server, model: str) -> None:
        body = {"model": model, "messages": QUESTION, "stream": True, "max_tokens": 3}
        response = server.http.post("/v1/chat/completions", json=body)
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line for line in response.text.split("\n\n") if line]
        assert events[-1] == "data: [DONE]"
        assert all(json.loads(event.removeprefix("data: "))["id"] for event in events[:-1])

    def test_plain_chat(self, server: Server, model: str) -> None:
        answer = server.openai.chat.completions.create(model=model, messages=QUESTION, max_tokens=5)
        assert answer.choices[0].message.content
        assert answer.choices[0].finish_reason in ("length", "stop")
        assert answer.usage is not None
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

    def test_completion_of_text_and_of_token_ids_agree(self, server: Server, model: str) -> None:
        text = "The small red fox"
        ids = server.http.post("/tokenize", json={"model": model, "prompt": text}).json()["tokens"]
        from_text = server.openai.completions.create(model=model, prompt=text, max_tokens=8, temperature=0)
        from_ids = server.openai.completions.create(model=model, prompt=ids, max_tokens=8, temperature=0)
        assert from_text.choices[0].text == from_ids.choices[0].text
        assert from_text.usage is not None
        assert from_text.usage.prompt_tokens == len(ids)

    def test_same_seed_same_text(self, server: Server, model: str) -> None:
        def answer(seed: int) -> str | None:
            create = server.openai.chat.completions.create
            return (
                create(model=model, messages=QUESTION, max_tokens=12, seed=seed, temperature=1.0)
                .choices[0]
                .message.content
            )

        assert answer(1) == answer(1)
        assert len({answer(seed) for seed in range(5)}) > 1

    def test_n_choices(self, server: Server, model: str) -> None:
        answer = server.openai.chat.completions.create(model=model, messages=QUESTION, max_tokens=3, n=3)
        assert [choice.index for choice in answer.choices] == [0, 1, 2]

    def test_tokenize_and_detokenize_are_inverse(self, server: Server, model: str) -> None:
        text = "A fox, a naïve 狐 and a 🦊."
        tokens = server.http.post("/tokenize", json={"model": model, "prompt": text}).json()
        assert tokens["count"] == len(tokens["tokens"])
        back = server.http.post("/detokenize", json={"model": model, "tokens": tokens["tokens"]}).json()
        assert back["prompt"] == text

    def test_model_may_have_a_suffix(self, server: Server, model: str) -> None:
        body: dict[str, Any] = {"messages": QUESTION, "max_tokens": 1}
        body["model"] = f"{model}/anything"
        assert server.http.post("/v1/chat/completions", json=body).status_code == 200

    def test_unknown_model_is_404(self, server: Server) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            server.openai.chat.completions.create(model="nobody", messages=QUESTION)
        assert caught.value.code == "model_not_found"

    @pytest.mark.parametrize(
        "body",
        [{"messages": []}, {}, {"messages": "text"}, {"messages": QUESTION, "max_tokens": -1}],
        ids=["no message", "no messages", "text as messages", "negative max_tokens"],
    )
    @pytest.mark.parametrize("stream", [False, True])
    def test_bad_request_is_400_in_openai_shape(
        self, server: Server, model: str, body: dict[str, Any], stream: bool
    ) -> None:
        response = server.http.post("/v1/chat/completions", json={"model": model, "stream": stream, **body})
        assert_openai_error(response, 400)

    def test_a_body_of_many_megabytes_arrives(self, server: Server, model: str) -> None:
        """Serve's gRPC handles refuse messages over 4 MiB unless told otherwise; an engine has to see it to say no."""
        response = server.http.post("/v1/completions", json={"model": model, "prompt": "fox " * 2_000_000})
        assert_openai_error(response, 400)

    def test_prompt_over_the_window_is_400(self, server: Server, model: str) -> None:
        ids = [65] * 5000
        assert_openai_error(server.http.post("/v1/completions", json={"model": model, "prompt": ids}), 400)

    def test_route_that_the_model_lacks_is_404(self, server: Server, model: str) -> None:
        assert_openai_error(server.http.post("/v1/embeddings", json={"model": model, "input": "x"}), 404)

    @pytest.mark.parametrize(
        "path", ["/collective_rpc", "/inference/v1/generate", "/sleep", "/invocations", "/v1/nothing"]
    )
    def test_control_routes_are_not_there(self, server: Server, path: str) -> None:
        assert_openai_error(server.http.post(path, json={}), 404)

    def test_request_id_is_kept_and_echoed_once(self, server: Server) -> None:
        response = server.http.get("/v1/models", headers={"x-request-id": "mine-1"})
        assert response.headers.get_list("x-request-id") == ["mine-1"]
        assert len(server.http.get("/v1/models").headers.get_list("x-request-id")) == 1

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize("n", [1, 3])
    def test_an_engine_counts_what_a_request_costs(self, server: Server, model: str, stream: bool, n: int) -> None:
        body: dict[str, Any] = {"model": model, "messages": QUESTION, "max_tokens": 5, "n": n, "ignore_eos": True}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        text, usage = server.cost(f"model-{model}", "/v1/chat/completions", body)
        last = [line for line in text.split("\n\n") if line.startswith("data: {")][-1] if stream else text
        said = json.loads(last.removeprefix("data: "))["usage"]
        assert (usage.prompt_tokens, usage.completion_tokens) == (said["prompt_tokens"], said["completion_tokens"])
        assert usage.completion_tokens == 5 * n

    def test_a_refused_request_costs_nothing(self, server: Server, model: str) -> None:
        _, usage = server.cost(f"model-{model}", "/v1/chat/completions", {"model": model, "messages": []})
        assert (usage.prompt_tokens, usage.completion_tokens) == (0, 0)

    def test_deep_health_generates_a_token(self, server: Server, model: str) -> None:
        answer = server.http.get("/health/deep", params={"model": model})
        assert answer.status_code == 200
        assert answer.json()["models"][model]["ok"] is True

    def test_a_field_that_would_have_no_effect_is_named(self, server: Server, model: str) -> None:
        body = {"model": model, "messages": QUESTION, "guided_decoding_backend": "outlines", "max_tokens": 1}
        response = server.http.post("/v1/chat/completions", json=body)
        assert_openai_error(response, 400)
        assert response.json()["error"]["param"] == "guided_decoding_backend"

    def test_fields_that_change_no_answer_are_accepted(self, server: Server, model: str) -> None:
        answer = server.openai.chat.completions.create(
            model=model,
            messages=QUESTION,
            max_tokens=1,
            user="me",
            metadata={"a": "b"},
            store=False,
            modalities=["text"],
        )
        assert answer.choices

    def test_max_tokens_over_the_window_is_refused_with_both_numbers(self, server: Server, model: str) -> None:
        with pytest.raises(openai.BadRequestError, match=r"5000.*4096") as caught:
            server.openai.chat.completions.create(model=model, messages=QUESTION, max_tokens=5000)
        assert caught.value.code == "context_length_exceeded"

    def test_model_list(self, server: Server, model: str) -> None:
        card = server.http.get(f"/v1/models/{model}").json()
        assert card["status"] == "running"
        assert card["max_model_len"] == 4096
        assert model in [item.id for item in server.openai.models.list()]


def assert_openai_error(response: httpx.Response, status: int) -> None:
    assert response.status_code == status, response.text
    assert response.json()["error"]["message"]
    assert response.headers["x-request-id"]
