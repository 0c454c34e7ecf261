"""Does it pay to choose replicas by what they know? Conversations over two replicas, beside round robin.

    python -m loadtests.routing [--users 8] [--turns 6] [--tokens 24] [--repetitions 3] [--plane handle]

The graph of `serve_config.yaml` is started with two replicas of the demo model, once for each way of choosing and
repetition; the ways take turns. Every user begins conversations that grow turn by turn, under one of a few system
prompts. How much of the prompts the engines had computed before is what they say themselves in each answer's `usage`.
Prints Markdown, and saves it in `loadtests/results/` with the figures of every run.
"""

import argparse
import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterable, Sequence
from typing import Any, get_args

import httpx

from loadtests.comparison.runs import rotated
from loadtests.conversations.figures import Run, Turn, report, to_run
from loadtests.conversations.texts import Plan, opening, question
from loadtests.output import save
from tests.harness import Config, Plane, application, default_config, eventually, serving

MODEL = "demo"
PREFIX, ROUND_ROBIN, LOAD = "prefix", "round robin", "load"
ROUND_ROBIN_ROUTER = "ray.serve.experimental.round_robin_router.RoundRobinRouter"
WARM_UP_ROUNDS = 2
"""Conversations of each user before anything counts, with texts of their own: an engine's first requests are slow."""
TIMEOUT_S = 120


def config_of(way: str, plane: Plane, kv_bytes: int) -> Config:
    """Return the shipped config with two replicas whose requests are spread in a way."""
    config = default_config()
    model = application(config, f"model-{MODEL}")
    model["args"]["engine_args"]["enable_prompt_tokens_details"] = True
    model["args"]["cpu"]["max_replicas_per_node"] = 2
    model["args"]["cpu"]["engine_args"]["kv_cache_memory_bytes"] = kv_bytes
    # HAProxy itself goes round; of handles Serve asks for a router that does.
    is_left_to_serve = way == LOAD or (way == ROUND_ROBIN and plane == "direct")
    model["args"]["routing"] = {"policy": "load" if is_left_to_serve else "prefix"}
    engine = model["deployments"][0]
    engine |= {"num_replicas": 2, "autoscaling_config": None}
    if way == ROUND_ROBIN and not is_left_to_serve:
        engine["request_router_config"] = {"request_router_class": ROUND_ROBIN_ROUTER}
    return config


async def converse(http: httpx.AsyncClient, plan: Plan, user: int, number: int) -> list[Turn]:
    """Hold one conversation, in which the model's own answers are part of what is said."""
    messages, turns = opening(plan, user, number), list[Turn]()
    for turn in range(plan.turns):
        messages.append(question(plan, user, number, turn))
        body = {"model": MODEL, "messages": messages, "max_tokens": plan.tokens, "temperature": 0, "ignore_eos": True}
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        begin_s = time.perf_counter()
        async with http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != 200:
                raise RuntimeError(f"{response.status_code} {(await response.aread())[:300]!r}")
            text, outcome = await read_answer(response.aiter_lines(), turn, begin_s)
        messages.append({"role": "assistant", "content": text})
        turns.append(outcome)
    return turns


async def read_answer(lines: AsyncIterable[str], turn: int, begin_s: float) -> tuple[str, Turn]:
    """Return a streamed answer's text, and what it cost; raises RuntimeError when it is an error or has no usage."""
    text, first_s, usage = "", 0.0, None
    async for line in lines:
        if not line.startswith("data: {"):
            continue
        event: dict[str, Any] = json.loads(line.removeprefix("data: "))
        if "error" in event:
            raise RuntimeError(line[:300])
        for choice in event["choices"]:
            if content := choice["delta"].get("content"):
                first_s = first_s or time.perf_counter()
                text += content
        usage = event.get("usage") or usage
    if usage is None or not first_s:
        raise RuntimeError("an answer without a text or without `usage`")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return text, Turn(turn, first_s - begin_s, usage["prompt_tokens"], cached)


async def all_users(url: str, plan: Plan, first: int, rounds: int) -> tuple[list[Turn], float]:
    """Have every user hold so many conversations, one after the other; return their turns and the seconds it took."""

    async def user(number: int) -> list[Turn]:
        return [turn for each in range(first, first + rounds) for turn in await converse(http, plan, number, each)]

    begin_s = time.perf_counter()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits, trust_env=False) as http:
        found = await asyncio.gather(*(user(number) for number in range(plan.users)))
    return [turn for turns in found for turn in turns], time.perf_counter() - begin_s


def measure(way: str, plan: Plan, plane: Plane, kv_bytes: int, repetition: int) -> Run:
    with serving(config_of(way, plane, kv_bytes), plane=plane) as server:
        eventually(lambda: len(server.running(f"model-{MODEL}")) == 2, "both replicas run")
        asyncio.run(all_users(server.base_url, plan, -WARM_UP_ROUNDS, WARM_UP_ROUNDS))
        turns, elapsed_s = asyncio.run(all_users(server.base_url, plan, 0, plan.conversations))
    return to_run(way, repetition, turns, elapsed_s)


def take_turns(ways: Sequence[str], plan: Plan, plane: Plane, kv_bytes: int, repetitions: int) -> list[Run]:
    runs = []
    for repetition in range(repetitions):
        for way in rotated(ways, repetition):
            runs.append(run := measure(way, plan, plane, kv_bytes, repetition))
            print(f"{repetition + 1}/{repetitions} {way}: {run.hit_rate:.1%} of prompt tokens cached", flush=True)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=8, help="who talk at the same time")
    parser.add_argument("--conversations", type=int, default=4, help="of each user, one after the other")
    parser.add_argument("--turns", type=int, default=6, help="of each conversation")
    parser.add_argument("--tokens", type=int, default=24, help="of each answer")
    parser.add_argument("--system-prompts", type=int, default=3, help="how many there are")
    parser.add_argument("--system-words", type=int, default=300, help="of each of them")
    parser.add_argument("--question-words", type=int, default=80, help="of each turn")
    parser.add_argument("--kv-mib", type=int, default=128, help="KV cache of each replica")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--plane", choices=get_args(Plane), default="handle")
    parser.add_argument("--against", default=ROUND_ROBIN, help=f"`{ROUND_ROBIN}`, `{LOAD}`, or both with a comma")
    options = parser.parse_args()
    plan = Plan(
        users=options.users,
        conversations=options.conversations,
        turns=options.turns,
        tokens=options.tokens,
        system_prompts=options.system_prompts,
        system_words=options.system_words,
        question_words=options.question_words,
    )
    ways = [PREFIX, *options.against.split(",")]
    if unknown := set(ways) - {PREFIX, ROUND_ROBIN, LOAD}:
        parser.error(f"--against: {unknown}")
    runs = take_turns(ways, plan, options.plane, options.kv_mib * 2**20, options.repetitions)
    save(f"routing-{options.plane}", [dataclasses.asdict(run) for run in runs], report(runs, plan, options.plane))


if __name__ == "__main__":
    main()
