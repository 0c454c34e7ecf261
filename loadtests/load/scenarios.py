"""What users ask: bodies of each kind of request. No state, so that every process can make them."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loadtests.load.constraints import SLOW, formats, fresh

Body = dict[str, Any]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOPICS = "a fox|the sea|a clock|rain in town|an old map|a lost key|the last bus|a letter".split("|")
STREAMED: Body = {"stream": True, "stream_options": {"include_usage": True}}
WARM = formats("warm")
CONVERSATION, INSTANCES = "conversation", "instances"
"""Scenarios with a state of their own: see `Workload`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to be made."""

    path: str
    body: Body
    may_be_refused: bool = False
    """A status 4xx is a right answer."""


def question() -> str:
    return f"Tell me story {fresh()} about {random.choice(TOPICS)}."


def chat(model: str, max_tokens: int) -> Ask:
    messages = [{"role": "user", "content": question()}]
    return Ask(CHAT, {"model": model, "messages": messages, "max_tokens": max_tokens, **STREAMED} | ENDLESS)


ENDLESS: Body = {"ignore_eos": True}
"""vLLM's: answers have exactly `max_tokens` tokens, so that runs can be compared."""


def plain_chat(model: str, max_tokens: int) -> Ask:
    body = {name: value for name, value in chat(model, max_tokens).body.items() if name not in STREAMED}
    return Ask(CHAT, body)


def completions(model: str, max_tokens: int) -> Ask:
    body = {"model": model, "prompt": question(), "max_tokens": max_tokens, **STREAMED, **ENDLESS}
    return Ask(COMPLETIONS, body)


def highlights(model: str, max_tokens: int) -> Ask:
    document = " ".join(question() for _ in range(20))
    return Ask("/api/highlights", {"model": model, "doc": document, "k": 5})


def continuations(model: str, max_tokens: int) -> Ask:
    messages = [{"role": "user", "content": question()}, {"role": "assistant", "content": "Once upon a time"}]
    return Ask("/api/continue_messages", {"model": model, "messages": messages})


def guided_warm(model: str, max_tokens: int) -> Ask:
    return Ask(CHAT, guided(model, max_tokens) | schema_field(WARM))


def guided_cold(model: str, max_tokens: int) -> Ask:
    return Ask(CHAT, guided(model, max_tokens) | schema_field(formats(fresh())))


def guided_hostile(model: str, max_tokens: int) -> Ask:
    """A constraint that is slow to compile: refused or answered, and never an error of the server's."""
    slow = SLOW[random.choice(("nested schemas", "slow regexes"))]()
    body = guided(model, max_tokens) | slow
    return Ask(CHAT, body, may_be_refused=True)


def guided(model: str, max_tokens: int) -> Body:
    """Return a chat that ends where its constraint does."""
    return {name: value for name, value in chat(model, max_tokens).body.items() if name not in ENDLESS}


def schema_field(schema: Body) -> Body:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


def turn(model: str, max_tokens: int, history: list[Body]) -> Ask:
    """Ask with what has been said so far; the last message is the user's."""
    body = {"model": model, "messages": list(history), "max_tokens": max_tokens, **STREAMED}
    return Ask(CHAT, body)


def instance_of_the_moment(instances: Sequence[str], switch_every_s: float) -> str:
    """Return whom everybody asks now, by the clock, so that processes agree; 0 s: anyone, at each request."""
    if switch_every_s <= 0:
        return random.choice(instances)
    return instances[int(time.time() / switch_every_s) % len(instances)]


SCENARIOS: dict[str, Callable[[str, int], Ask]] = {
    "chat": chat,
    "plain-chat": plain_chat,
    "completions": completions,
    "highlights": highlights,
    "continuations": continuations,
    "guided-warm": guided_warm,
    "guided-cold": guided_cold,
    "guided-hostile": guided_hostile,
}
"""By the name that `--mix` knows them by, which is the name of their rows, too."""

NAMES = (*SCENARIOS, CONVERSATION, INSTANCES)


def parse_mix(text: str) -> dict[str, float]:
    """Read `chat:8,highlights:1`: which scenarios, and how often; raises ValueError naming what there is."""
    mix: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = part.partition(":")
        if name not in NAMES:
            raise ValueError(f"there is no scenario `{name}`; there are {', '.join(NAMES)}")
        try:
            mix[name] = float(weight or 1)
        except ValueError:
            raise ValueError(f"the weight of scenario `{name}` must be a number, not `{weight}`") from None
    if not mix or min(mix.values()) < 0 or sum(mix.values()) <= 0:
        raise ValueError("--mix must name a scenario with a weight above 0, and none below: chat:8,highlights:1")
    return mix
