"""What the writing tools must do over HTTP with either engine; see `tests/cases.py`."""

import contextlib
import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.faults import ABORT_TIMEOUT_S, is_busy, is_idle
from tests.harness import Server, eventually

SIX_SCRIPTS = (
    "The fox, лиса, αλεπού, 狐狸と, שועל, लोमड़ी.\n\n"
    " \U0001f98a e\u0301\u200d \U0001f469\u200d\U0001f469\u200d\U0001f467 ok  "
)
CHAT = [{"role": "user", "content": "Tell me a story about a fox."}]
BEGUN = [*CHAT, {"role": "assistant", "content": "Once upon"}]
LONG = "The fox lives in a house near the river. " * 4_800
EVENTS = {"accept": "text/event-stream"}
WINDOW_TOKENS = 4096


def highlights(server: Server, model: str, doc: str, **fields: Any) -> list[dict[str, Any]]:
    response = server.http.post("/api/highlights", json={"model": model, "doc": doc, **fields})
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["highlights"]
    return items


def check_items(items: list[dict[str, Any]], document: str, k: int = 5) -> None:
    assert "".join(item["token"] for item in items) == document
    assert [item["start"] for item in items] == [0, *(item["end"] for item in items[:-1])]
    for item in items:
        assert item["token"] == document[item["start"] : item["end"]]
        assert 0 <= item["token_loss"] < math.inf
        assert len(item["topk_tokens"]) == k
        assert item["most_likely_token"] == item["topk_tokens"][0]
        assert "\ufffd" not in "".join(item["topk_tokens"])


def assert_detail(response: httpx.Response, status: int, *words: str) -> None:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]
    for word in words:
        assert word in response.json()["detail"]
    assert response.headers["x-request-id"]


def leave_long_highlights(server: Server, model: str, stream: bool) -> None:
    body, deadline = {"model": model, "doc": LONG, "window": True}, time.monotonic() + 3
    with contextlib.suppress(httpx.ReadTimeout):
        url = f"{server.base_url}/api/highlights"
        with httpx.stream("POST", url, json=body, headers=EVENTS if stream else {}, timeout=3) as response:
            for _ in response.iter_raw():
                if time.monotonic() > deadline:
                    return


class WritingCases:
    """Each test takes the fixtures `server`, `model`, and `slow_writer`: a model that scores LONG for many seconds."""

    def test_six_scripts_and_emoji_come_back_whole(self, server: Server, model: str) -> None:
        check_items(highlights(server, model, SIX_SCRIPTS), SIX_SCRIPTS)

    def test_get_and_post_say_the_same(self, server: Server, model: str) -> None:
        query: dict[str, Any] = {
            "model": model,
            "doc": "A b\u00e4r.",
            "prompt": "Shorter",
            "updated_doc": "A bear.",
            "k": 3,
        }
        answer = server.http.get("/api/highlights", params={**query, "_": "keeps caches away"}).json()["highlights"]
        check_items(answer, "A bear.", k=3)
        posted = highlights(server, model, "A b\u00e4r.", prompt="Shorter", updated_doc="A bear.", k=3)
        assert [item["token_loss"] for item in posted] == pytest.approx([i["token_loss"] for i in answer], abs=0.1)

    @pytest.mark.parametrize("k", [1, 20])
    def test_as_many_alternatives_as_asked_for(self, server: Server, model: str, k: int) -> None:
        check_items(highlights(server, model, "The fox runs.", k=k), "The fox runs.", k)

    def test_a_blank_updated_doc_is_the_doc(self, server: Server, model: str) -> None:
        check_items(highlights(server, model, " x\n", updated_doc=" \n"), " x\n")
        assert highlights(server, model, "") == []

    def test_offsets_of_javascript(self, server: Server, model: str) -> None:
        items = highlights(server, model, SIX_SCRIPTS, offsets="utf16")
        units = SIX_SCRIPTS.encode("utf-16-le")
        for item in items:
            assert units[2 * item["start"] : 2 * item["end"]].decode("utf-16-le") == item["token"]
        assert items[-1]["end"] == len(units) // 2

    def test_detail(self, server: Server, model: str) -> None:
        for item in highlights(server, model, "The fox runs.", detail=True):
            assert item["rank"] >= 1
            assert 0 <= item["entropy"] < math.inf
            assert item["topk_logprobs"] == sorted(item["topk_logprobs"], reverse=True)
            assert max(item["topk_logprobs"]) <= 0

    def test_streamed_items_are_those_of_the_whole(self, server: Server, model: str) -> None:
        document = SIX_SCRIPTS * 8
        response = server.http.post("/api/highlights", json={"model": model, "doc": document}, headers=EVENTS)
        assert response.headers["content-type"].startswith("text/event-stream")
        *events, done = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
        assert done == "[DONE]"
        assert len(events) > 1
        items = [item for event in events for item in json.loads(event)["highlights"]]
        check_items(items, document)
        whole = [item["token_loss"] for item in highlights(server, model, document)]
        assert [item["token_loss"] for item in items] == pytest.approx(whole, abs=0.5)

    def test_a_document_beyond_the_window(self, server: Server, model: str) -> None:
        document = LONG[:30_000]
        refused = server.http.post("/api/highlights", json={"model": model, "doc": document})
        assert_detail(refused, 400, str(WINDOW_TOKENS), "window: true")
        check_items(highlights(server, model, document, window=True), document)
        check_items(highlights(server, model, "Short.", updated_doc=document, window=True), document)

    @pytest.mark.parametrize("stream", [False, True])
    def test_leaving_ends_the_scoring(self, server: Server, slow_writer: str, stream: bool) -> None:
        with ThreadPoolExecutor(1) as pool:
            leaving = pool.submit(leave_long_highlights, server, slow_writer, stream)
            eventually(lambda: is_busy(server, slow_writer), "the engine scores")
            leaving.result()
        # Between two windows it is idle for a moment, too.
        eventually(
            lambda: all(is_idle(server, slow_writer) for _ in range(20)), "nothing more is scored", ABORT_TIMEOUT_S
        )

    @pytest.mark.parametrize("messages", [CHAT, BEGUN, [{"role": "user", "content": ""}]])
    @pytest.mark.parametrize(("k", "future"), [(1, 0), (5, 1), (20, 3)])
    def test_every_continuation_has_text(
        self, server: Server, model: str, messages: list[Any], k: int, future: int
    ) -> None:
        body = {"model": model, "messages": messages, "n_branch_tokens": k, "n_future_tokens": future}
        found = server.http.post("/api/continue_messages", json=body).json()["continuations"]
        assert len(found) == k
        assert all(one["doc_text"] and "\ufffd" not in one["doc_text"] for one in found)
        assert len({one["token_id"] for one in found}) == k
        logprobs = [one["logprob"] for one in found]
        assert logprobs == sorted(logprobs, reverse=True)
        assert logprobs[0] <= 0

    def test_next_token(self, server: Server, model: str) -> None:
        query = {"original_doc": "The fox.", "prompt": "Longer", "doc_in_progress": "The red", "model": model}
        assert len(server.http.get("/api/next_token", params=query).json()["next_tokens"]) == 5

    def test_logprobs_of_a_chat(self, server: Server, model: str) -> None:
        body = {"model": model, "messages": BEGUN, "n_branch_tokens": 3}
        first, *rest = server.http.post("/api/logprobs", json=body).json()["logprobs"]
        assert first["logprobs"] == {}
        assert [entry["token"] is None for entry in rest] == [False] * (len(rest) - 1) + [True]
        assert "".join(entry["token"] for entry in [first, *rest[:-1]]).endswith("Once upon")
        for entry in rest:
            assert 1 <= len(entry["logprobs"]) <= 4
            assert all(logprob <= 0 for logprob in entry["logprobs"].values())

    def test_revisions(self, server: Server, model: str) -> None:
        query: dict[str, Any] = {
            "model": model,
            "prompt": "Rewrite.",
            "doc": "The fox is quick.",
            "n": 3,
            "max_length": 12,
        }
        revised = server.http.get("/api/gen_revisions", params=query).json()["revised_docs"]
        assert [list(one) for one in revised] == [["doc_text"]] * 3

    def test_no_messages(self, server: Server, model: str) -> None:
        for path in ("/api/continue_messages", "/api/logprobs"):
            response = server.http.post(path, json={"model": model, "messages": []})
            assert_detail(response, 400)
            assert response.json() == {"detail": "At least one message must be provided."}

    @pytest.mark.parametrize(
        ("fields", "status", "word"),
        [
            ({"doc": "a", "k": 0}, 422, "k"),
            ({"doc": "a", "k": 21}, 422, "20"),
            ({"doc": "a", "k": "many"}, 422, "k"),
            ({}, 422, "doc"),
            ({"doc": "a", "model": "nobody"}, 404, "nobody"),
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_bad_highlights(
        self, server: Server, model: str, fields: dict[str, Any], status: int, word: str, method: str
    ) -> None:
        asked = {"model": model, **fields}
        sent = {"params": asked} if method == "GET" else {"json": asked}
        assert_detail(server.http.request(method, "/api/highlights", **sent), status, word)  # type: ignore[arg-type]

    def test_a_document_over_the_limit(self, server: Server, model: str) -> None:
        body = {"model": model, "doc": "a" * 200_001, "window": True}
        assert_detail(server.http.post("/api/highlights", json=body), 400, "200000", "200001")

    @pytest.mark.parametrize(
        "fields",
        [
            {"n_branch_tokens": 0},
            {"n_branch_tokens": 21},
            {"n_future_tokens": -1},
            {"n_future_tokens": 65},
            {"n_branch_tokens": "5"},
            {"messages": "text"},
            {"messages": [{"role": "user"}]},
            {"messages": [{"role": "nobody", "content": "x"}]},
            {"future": 1},
        ],
        ids=str,
    )
    def test_bad_conversations(self, server: Server, model: str, fields: dict[str, Any]) -> None:
        body = {"model": model, "messages": CHAT, **fields}
        assert_detail(server.http.post("/api/continue_messages", json=body), 422)

    def test_a_conversation_beyond_the_window(self, server: Server, model: str) -> None:
        body = {"model": model, "messages": [{"role": "user", "content": LONG[:30_000]}]}
        for path in ("/api/continue_messages", "/api/logprobs"):
            assert_detail(server.http.post(path, json=body), 400, str(WINDOW_TOKENS))
