"""The official client against the gateway, in process: what its users see."""

from collections.abc import Coroutine
from typing import Any, TypeVar

import httpx2
import openai
import pytest

from config.models import FakeEngineSettings, ModelSettings
from deployments.errors import EngineUnavailableError, InvalidRequestError, OverloadedError
from deployments.ingress.services import Engine
from tests.aio import run
from tests.fakes import EVENTS, FixedModel, InProcessFake, ScriptedEngine, ScriptedResponse, make_api, model_info

T = TypeVar("T")
MESSAGES: Any = [{"role": "user", "content": "Hello"}]
CHUNK = b"""data: {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": \
[{"index": 0, "delta": {"content": "word"}, "finish_reason": null}]}\n\n"""


def make_client(engine: Engine, status: str = "running") -> openai.AsyncOpenAI:
    info = model_info("m", "/v1/chat/completions", "/v1/completions")
    transport = httpx2.ASGITransport(make_api(FixedModel("m", engine, status, info=info)))
    http_client = httpx2.AsyncClient(transport=transport)
    return openai.AsyncOpenAI(base_url="http://localhost/v1", api_key="none", max_retries=0, http_client=http_client)


async def with_fake_engine() -> openai.AsyncOpenAI:
    engine = InProcessFake(ModelSettings(name="m", backend="fake", fake=FakeEngineSettings(max_model_len=64)))
    await engine.backend.start()
    return make_client(engine)


def call(client: openai.AsyncOpenAI, request: Coroutine[Any, Any, T]) -> T:
    async def main() -> T:
        async with client:
            return await request

    return run(main())


def chat(client: openai.AsyncOpenAI, model: str = "m", **fields: Any) -> Any:
    return call(client, client.chat.completions.create(model=model, messages=MESSAGES, **fields))


def test_chat() -> None:
    async def main() -> None:
        async with await with_fake_engine() as client:
            create = client.chat.completions.create
            whole = await create(model="m", messages=MESSAGES, max_tokens=5)
            stream = await create(
                model="m", messages=MESSAGES, max_tokens=5, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
        assert whole.choices[0].message.content
        deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(deltas) == whole.choices[0].message.content
        assert chunks[-1].usage == whole.usage

    run(main())


def test_completions_and_models() -> None:
    async def main() -> None:
        async with await with_fake_engine() as client:
            completion = await client.completions.create(model="m", prompt="Hello", max_tokens=2)
            models = await client.models.list()
            card = await client.models.retrieve("m")
        assert completion.usage is not None
        assert completion.usage.completion_tokens == 2
        assert [model.id for model in models.data] == ["m"] == [card.id]

    run(main())


def test_an_engine_that_is_lost_half_way_raises_after_the_chunks_that_came() -> None:
    async def main() -> None:
        answer = ScriptedResponse([CHUNK, CHUNK, EngineUnavailableError("The engine was lost. Retry.")], EVENTS)
        words: list[str | None] = []

        async def read() -> None:
            async with make_client(ScriptedEngine(answer)) as client:
                async for chunk in await client.chat.completions.create(model="m", messages=MESSAGES, stream=True):
                    words.append(chunk.choices[0].delta.content)

        with pytest.raises(openai.APIError, match=r"The engine was lost\. Retry\.") as caught:
            await read()
        assert words == ["word", "word"]
        assert caught.value.code == "engine_unavailable"

    run(main())


def test_an_unknown_model() -> None:
    with pytest.raises(openai.NotFoundError, match="`nobody` does not exist") as caught:
        chat(make_client(ScriptedEngine()), model="nobody")
    assert (caught.value.code, caught.value.param, caught.value.type) == ("model_not_found", "model", "not_found_error")
    assert caught.value.request_id


def test_a_route_that_the_model_lacks() -> None:
    client = make_client(ScriptedEngine())
    with pytest.raises(openai.NotFoundError, match="/v1/embeddings"):
        call(client, client.embeddings.create(model="m", input="x"))


@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_request(stream: bool) -> None:
    with pytest.raises(openai.BadRequestError, match="too many") as caught:
        chat(make_client(ScriptedEngine(InvalidRequestError("too many", "max_tokens"))), stream=stream)
    assert (caught.value.param, caught.value.type) == ("max_tokens", "invalid_request_error")


def test_an_error_of_the_engine_itself() -> None:
    async def main() -> None:
        async with await with_fake_engine() as client:
            await client.completions.create(model="m", prompt=[1] * 100)

    with pytest.raises(openai.BadRequestError, match="100 tokens"):
        run(main())


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue(stream: bool) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        chat(make_client(ScriptedEngine(OverloadedError("full", None, 2))), stream=stream)
    assert caught.value.type == "overloaded_error"
    assert caught.value.response.headers["retry-after"] == "2"


def test_a_model_that_is_loading() -> None:
    with pytest.raises(openai.InternalServerError, match="is loading") as caught:
        chat(make_client(ScriptedEngine(), status="starting"))
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"]


def test_an_error_that_nobody_foresaw() -> None:
    with pytest.raises(openai.InternalServerError, match="The server had an error") as caught:
        chat(make_client(ScriptedEngine(ValueError("secret"))))
    assert caught.value.status_code == 500
    assert "secret" not in str(caught.value)
