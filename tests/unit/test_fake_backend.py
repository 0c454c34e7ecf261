"""The fake engine without HTTP; `tests/cases.py` holds it to vLLM's behaviour."""

import asyncio
import json
from typing import Any

import pytest

from config.models import FakeEngineSettings, ModelSettings
from deployments.direct.local import LocalResponse
from deployments.engine.fake_openapi import FIELDS
from deployments.types import EngineStats, HttpRequest, Usage
from tests.aio import run, settle, until
from tests.fakes import JSON, InProcessFake

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hello"}]
IDLE = EngineStats(0, 0, 0.0)


async def started(**fake: Any) -> InProcessFake:
    engine = InProcessFake(ModelSettings(name="m", backend="fake", fake=FakeEngineSettings(**fake)))
    await engine.backend.start()
    return engine


async def opened(engine: InProcessFake, path: str, body: dict[str, Any]) -> LocalResponse:
    return await engine.open(HttpRequest("POST", path, b"", JSON, json.dumps(body).encode()))


async def answered(engine: InProcessFake, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    response = await opened(engine, path, body)
    return response.head.status, b"".join([chunk async for chunk in response])


def answer(path: str, body: dict[str, Any], **fake: Any) -> Any:
    async def main() -> Any:
        status, content = await answered(await started(**fake), path, body)
        assert status == 200, content
        return json.loads(content)

    return run(main())


def stream(path: str, body: dict[str, Any], **fake: Any) -> list[Any]:
    async def main() -> list[Any]:
        _, content = await answered(await started(**fake), path, {**body, "stream": True})
        *events, done, end = content.decode().split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        return [json.loads(event.removeprefix("data: ")) for event in events]

    return run(main())


def test_chat_stream_is_what_openai_clients_expect() -> None:
    events = stream(CHAT, {"messages": MESSAGES, "max_tokens": 3, "stream_options": {"include_usage": True}})
    deltas = [event["choices"][0] for event in events[:-1]]
    assert deltas[0]["delta"] == {"role": "assistant", "content": ""}
    assert [delta["finish_reason"] for delta in deltas] == [None, None, None, None, "length"]
    assert {(event["object"], event["model"], event["id"]) for event in events} == {
        ("chat.completion.chunk", "m", events[0]["id"])
    }
    assert events[-1]["choices"] == []
    assert events[-1]["usage"]["completion_tokens"] == 3


def test_stream_and_plain_answer_agree() -> None:
    chat = {"messages": MESSAGES, "max_tokens": 9}
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in stream(CHAT, chat))
    assert text == answer(CHAT, chat)["choices"][0]["message"]["content"]
    completion = {"prompt": "Hello", "max_tokens": 9}
    text = "".join(event["choices"][0]["text"] for event in stream(COMPLETION, completion))
    assert text == answer(COMPLETION, completion)["choices"][0]["text"]


def test_every_choice_is_streamed() -> None:
    events = stream(CHAT, {"messages": MESSAGES, "max_tokens": 2, "n": 3})
    assert {event["choices"][0]["index"] for event in events} == {0, 1, 2}
    assert len(answer(COMPLETION, {"prompt": "a", "n": 3})["choices"]) == 3


def test_usage_counts_tokens_of_prompt_and_answer() -> None:
    usage = answer(COMPLETION, {"prompt": [1, 2, 3], "max_tokens": 5, "n": 2})["usage"]
    assert usage == {"prompt_tokens": 3, "completion_tokens": 10, "total_tokens": 13}


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [({}, 7), ({"max_tokens": 3}, 3), ({"max_tokens": 3, "max_completion_tokens": 4}, 4), ({"max_tokens": None}, 7)],
)
def test_the_answer_is_as_long_as_asked(limits: dict[str, Any], tokens: int) -> None:
    usage = answer(CHAT, {"messages": MESSAGES, **limits}, default_max_tokens=7)["usage"]
    assert usage["completion_tokens"] == tokens


def test_the_answer_ends_with_the_window() -> None:
    usage = answer(COMPLETION, {"prompt": [1] * 10, "max_tokens": 50}, max_model_len=16)["usage"]
    assert usage["total_tokens"] == 16


def test_the_seed_of_the_request_wins_over_the_settings() -> None:
    def text(seed: int | None, fake_seed: int) -> Any:
        return answer(COMPLETION, {"prompt": "a", "seed": seed}, seed=fake_seed)["choices"][0]["text"]

    assert text(None, 1) == text(1, 2) == text(1, 1)
    assert text(None, 1) != text(None, 2)
    assert text(0, 1) == text(None, 0)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {}, "messages"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": "text"}, "messages"),
        (CHAT, {"messages": ["text"]}, "messages"),
        (CHAT, {"messages": MESSAGES, "max_tokens": 0}, "max_tokens"),
        (CHAT, {"messages": MESSAGES, "max_tokens": "many"}, "max_tokens"),
        (COMPLETION, {}, "prompt"),
        (COMPLETION, {"prompt": ["a"]}, "prompt"),
        (COMPLETION, {"prompt": [1] * 4096}, None),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {}, "messages"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_bad_request_is_400(path: str, body: dict[str, Any], param: str | None, is_stream: bool) -> None:
    async def main() -> tuple[int, bytes]:
        return await answered(await started(), path, {**body, "stream": is_stream})

    status, content = run(main())
    assert status == 400
    assert json.loads(content)["error"]["type"] == "invalid_request_error"
    assert json.loads(content)["error"]["param"] == param


def test_tokenize_and_detokenize_are_inverse() -> None:
    tokens = answer("/tokenize", {"prompt": "a river, 模型"})
    assert tokens["count"] == len(tokens["tokens"])
    assert answer("/detokenize", {"tokens": tokens["tokens"]}) == {"prompt": "a river, 模型"}


def test_a_chat_is_tokenized_as_it_is_answered() -> None:
    count = answer("/tokenize", {"messages": MESSAGES})["count"]
    assert answer(CHAT, {"messages": MESSAGES})["usage"]["prompt_tokens"] == count


def test_it_serves_the_routes_that_it_names_and_no_others() -> None:
    async def main() -> None:
        engine = await started(max_model_len=512)
        info = engine.backend.info()
        assert (info.name, info.max_model_len) == ("m", 512)
        statuses = {path: (await answered(engine, path, {}))[0] for path in info.paths}
        assert set(statuses.values()) == {400}
        assert (await answered(engine, "/v1/embeddings", {}))[0] == 404

    run(main())


@pytest.mark.parametrize("speed", [{"ttft_s": 3600}, {"itl_s": 3600}])
@pytest.mark.parametrize("path", [CHAT, COMPLETION])
def test_a_stream_that_is_left_ends_in_the_engine(speed: dict[str, Any], path: str) -> None:
    async def main() -> None:
        engine = await started(**speed)
        body = {"messages": MESSAGES, "prompt": "a", "stream": True}
        response = await opened(engine, path, body)
        await until(lambda: engine.backend.stats().num_running == 1)
        response.cancel()
        await until(lambda: engine.backend.stats() == IDLE)

    run(main())


def test_a_plain_request_that_is_left_ends_in_the_engine() -> None:
    async def main() -> None:
        engine = await started(itl_s=3600)
        request = asyncio.ensure_future(opened(engine, CHAT, {"messages": MESSAGES}))
        await until(lambda: engine.backend.stats().num_running == 1)
        assert engine.backend.stats().kv_cache_usage > 0
        request.cancel()
        await until(lambda: engine.backend.stats() == IDLE)

    run(main())


def cost(path: str, body: dict[str, Any]) -> Usage | None:
    async def main() -> Usage | None:
        response = await opened(await started(), path, body)
        assert response.usage is None
        async for _ in response:
            pass
        return response.usage

    return run(main())


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_a_generation_costs_its_prompt_and_all_its_choices(is_stream: bool, n: int) -> None:
    body = {"prompt": [1, 2, 3], "max_tokens": 5, "n": n, "stream": is_stream}
    assert cost(COMPLETION, body) == Usage(3, 5 * n)


@pytest.mark.parametrize(("path", "body"), [("/tokenize", {"prompt": "a b"}), (CHAT, {"messages": []})])
def test_what_generates_nothing_costs_nothing(path: str, body: dict[str, Any]) -> None:
    assert cost(path, body) == Usage(0, 0)


def test_its_facts() -> None:
    info = run(started()).backend.info()
    assert info.openapi not in repr(info), "a log line would hold the whole document"
    paths = json.loads(info.openapi)["paths"]
    assert set(paths) == set(FIELDS) == info.paths
    schema = paths[CHAT]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"messages", "max_completion_tokens", "structured_outputs"} <= set(schema["properties"])
    assert info.vocab_size > max(answer("/tokenize", {"prompt": "a river \u00ff"})["tokens"])


def test_a_probe_is_one_step_and_no_request() -> None:
    async def main() -> None:
        engine = await started(hang_after_requests=1)
        before_s = engine.backend.last_step_s()
        await engine.probe()
        await engine.probe()
        assert engine.backend.last_step_s() > before_s
        assert engine.backend.num_unfinished() == 0
        assert (await answered(engine, CHAT, {"messages": MESSAGES}))[0] == 200

    run(main())


@pytest.mark.parametrize("is_stream", [False, True])
def test_it_hangs_after_so_many_requests(is_stream: bool) -> None:
    async def main() -> None:
        engine = await started(hang_after_requests=1)
        body = {"messages": MESSAGES, "max_tokens": 2, "stream": is_stream}
        assert (await answered(engine, CHAT, body))[0] == 200
        stepped_s = engine.backend.last_step_s()
        waiting = [asyncio.ensure_future(answered(engine, CHAT, body)), asyncio.ensure_future(engine.probe())]
        await until(lambda: engine.backend.num_unfinished() == 2)
        await settle()
        assert not any(task.done() for task in waiting)
        assert engine.backend.last_step_s() == stepped_s
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

    run(main())


def test_it_is_dead_once_shut_down() -> None:
    engine = run(started())
    assert not engine.backend.is_dead()
    engine.backend.shutdown()
    engine.backend.shutdown()
    assert engine.backend.is_dead()
