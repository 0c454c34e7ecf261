"""The parts of `loadtests.routing` that need no server."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import product

import pytest

from loadtests.conversations.figures import Turn, hit_rate, report, to_run
from loadtests.conversations.texts import Plan, opening, question
from loadtests.routing import LOAD, MODEL, PREFIX, ROUND_ROBIN, ROUND_ROBIN_ROUTER, config_of, read_answer
from tests.harness import PLANES, application

PLAN = Plan(users=4, conversations=2, turns=3, tokens=8, system_prompts=2, system_words=20, question_words=5)


def event(text: str = "", **fields: object) -> str:
    return "data: " + json.dumps({"choices": [{"delta": {"content": text}}], **fields})


def usage(prompt: int, cached: int | None) -> str:
    details = None if cached is None else {"cached_tokens": cached}
    return "data: " + json.dumps({"choices": [], "usage": {"prompt_tokens": prompt, "prompt_tokens_details": details}})


def read(*lines: str) -> tuple[str, Turn]:
    async def stream() -> AsyncIterator[str]:
        for line in lines:
            yield line

    return asyncio.run(read_answer(stream(), 2, 0.0))


def test_texts_are_the_same_each_time_and_nobody_else_says_them() -> None:
    said = [question(PLAN, *name)["content"] for name in product(range(4), range(-2, 2), range(3))]
    assert len(set(said)) == len(said)
    assert said == [question(PLAN, *name)["content"] for name in product(range(4), range(-2, 2), range(3))]


def test_users_share_system_prompts_but_not_those_that_warm_up() -> None:
    shared = {opening(PLAN, user, number)[0]["content"] for user in range(4) for number in range(2)}
    warm_up = {opening(PLAN, user, number)[0]["content"] for user in range(4) for number in (-2, -1)}
    assert len(shared) == 2
    assert len(warm_up) == 8
    assert not shared & warm_up


def test_an_answer_is_its_text_and_what_it_cost() -> None:
    text, turn = read(": waiting", event(), event("a "), "", event("fox", usage=None), usage(40, 32), "data: [DONE]")
    assert text == "a fox"
    assert (turn.number, turn.prompt_tokens, turn.cached_tokens) == (2, 40, 32)
    assert turn.ttft_s > 0


def test_nothing_cached_is_said_by_leaving_it_out() -> None:
    assert read(event("a"), usage(40, None))[1].cached_tokens == 0


@pytest.mark.parametrize("lines", [[event("a")], [usage(1, 1)], [event("a"), 'data: {"error": {}}'], []])
def test_broken_answers_are_errors(lines: list[str]) -> None:
    with pytest.raises(RuntimeError):
        read(*lines)


def test_figures() -> None:
    turns = [Turn(0, 0.2, 100, 0), Turn(1, 0.1, 200, 100), Turn(2, 0.1, 300, 200)]
    run = to_run(PREFIX, 0, turns, 2.0)
    assert (run.turns, run.turns_per_s, run.hit_rate) == (3, 1.5, 0.5)
    assert (run.first_hit_rate, run.later_hit_rate) == (0.0, 0.6)
    assert (run.ttft_p95_s, run.later_ttft_p95_s) == (0.2, 0.1)
    assert hit_rate([]) == 0.0


def test_a_report_has_medians_and_ratios_within_repetitions() -> None:
    runs = []
    for repetition, slowness in enumerate((1, 10, 2)):
        runs.append(to_run(PREFIX, repetition, [Turn(1, 0.1 * slowness, 100, 80)], 1.0))
        runs.append(to_run(ROUND_ROBIN, repetition, [Turn(1, 0.2 * slowness, 100, 40)], 1.0))
    text = report(runs, PLAN, "handle")
    assert "| prefix | 80.0% |" in text
    assert "| prefix / round robin | 2.00 | - | 2.00 | 0.50 |" in text


def test_ways_differ_in_how_replicas_are_chosen_and_in_nothing_else() -> None:
    for plane in PLANES:
        found = {way: config_of(way, plane, 2**26) for way in (PREFIX, ROUND_ROBIN, LOAD)}
        for config in found.values():
            model = application(config, f"model-{MODEL}")
            model["args"].pop("routing")
            router = model["deployments"][0].pop("request_router_config", None)
            is_round_robin = config is found[ROUND_ROBIN] and plane == "handle"
            assert router == ({"request_router_class": ROUND_ROBIN_ROUTER} if is_round_robin else None)
        assert found[PREFIX] == found[ROUND_ROBIN] == found[LOAD]
