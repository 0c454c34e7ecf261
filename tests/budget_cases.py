"""Where a request's time went, as a client is told it: the same cases for the fake engine and for vLLM."""

import json
from typing import Any

import httpx
import pytest

from tests.harness import Server

PARTS = (
    "policy_s",
    "read_and_parse_s",
    "queue_s",
    "template_and_tokenize_s",
    "guided_wait_s",
    "engine_queue_s",
    "prefill_s",
    "decode_s",
    "detokenize_and_serialise_s",
    "flush_s",
)
TRIES = 5
TELL = {"x-latency-budget": "1"}
COMMENT = ": latency-budget "
CHAT: Any = {"messages": [{"role": "user", "content": "Tell me a story about a fox."}], "max_tokens": 24}


def budget_of(response: httpx.Response) -> dict[str, float]:
    """Read a budget from an answer's header, or from the last lines of a stream."""
    assert response.status_code == 200, response.text
    if COMMENT not in response.text:
        budget: dict[str, float] = json.loads(response.headers["x-latency-budget"])
        return budget
    assert response.text.index("data: [DONE]") < response.text.index(COMMENT)
    last: dict[str, float] = json.loads(response.text.split(COMMENT)[1])
    return last


def told(server: Server, path: str, body: dict[str, Any]) -> dict[str, float]:
    """Return a budget that adds up: what the parts leave over, or have too much, is within 5 % or 2 ms.

    A request that the machine stopped half-way, between two of its clocks, is asked again.
    """
    for _ in range(TRIES):
        budget = budget_of(server.http.post(path, json=body, headers=TELL))
        assert all(seconds >= 0 for name, seconds in budget.items() if name != "other_s"), budget
        parts_s = sum(seconds for name, seconds in budget.items() if name != "total_s")
        assert parts_s == pytest.approx(budget["total_s"], abs=1e-4)
        if abs(budget["other_s"]) <= max(0.05 * budget["total_s"], 0.002):
            return budget
    raise AssertionError(f"it never adds up: {budget}")


class BudgetCases:
    """Each test takes the fixtures `server` and `model` of the tier that inherits it."""

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("options", [{}, {"n": 3}], ids=["one choice", "three choices"])
    def test_the_parts_of_a_chat_add_up(self, server: Server, model: str, stream: bool, options: Any) -> None:
        body = {"model": model, **CHAT, "stream": stream, **options}
        budget = told(server, "/v1/chat/completions", body)
        assert list(budget) == ["total_s", *PARTS, "other_s"]
        assert budget["decode_s"] > 0

    def test_the_parts_of_a_long_prompt_add_up(self, server: Server, model: str) -> None:
        body = {"model": model, "prompt": "a fox and " * 300, "max_tokens": 2}
        assert told(server, "/v1/completions", body)["prefill_s"] > 0

    def test_a_request_that_needs_no_engine_core(self, server: Server, model: str) -> None:
        budget = told(server, "/tokenize", {"model": model, "prompt": "a fox"})
        assert (budget["prefill_s"], budget["decode_s"]) == (0, 0)

    def test_the_writing_tools_say_what_they_know(self, server: Server, model: str) -> None:
        budget = told(server, "/api/highlights", {"model": model, "doc": "A fox.", "prompt": "Write."})
        assert list(budget) == ["total_s", "policy_s", "read_and_parse_s", "queue_s", "answer_s", "flush_s", "other_s"]

    def test_nobody_is_told_who_has_not_asked(self, server: Server, model: str) -> None:
        for stream in (True, False):
            response = server.http.post("/v1/chat/completions", json={"model": model, **CHAT, "stream": stream})
            assert COMMENT not in response.text
            assert "x-latency-budget" not in response.headers

    def test_the_official_client_passes_it_over(self, server: Server, model: str) -> None:
        create = server.openai.chat.completions.create
        chunks = list(create(model=model, **CHAT, stream=True, extra_headers=TELL))
        assert chunks[-1].choices[0].finish_reason
