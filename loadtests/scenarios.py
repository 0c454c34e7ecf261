"""What users ask: bodies of each kind of request. No state but a counter, so that every process can make them."""

import itertools
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loadtests.constraints import SLOW, formats, fresh

Body = dict[str, Any]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
TOPICS = "a fox|the sea|a clock|rain in town|an old map|a lost key|the last bus|a letter".split("|")
NUMBERS = itertools.count(os.getpid() * 100_000)
WARM = formats("warm")


@dataclass(frozen=True)
class Ask:
    """One request to be made."""

    name: str
    path: str
    body: Body


def question() -> str:
    return f"Tell me story number {next(NUMBERS)} about {random.choice(TOPICS)}."


def chat(model: str, max_tokens: int) -> Ask:
    messages = [{"role": "user", "content": question()}]
    body = {"messages": messages, "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    return Ask("chat", CHAT, {"model": model, "max_tokens": max_tokens, **body})


def plain_chat(model: str, max_tokens: int) -> Ask:
    ask = chat(model, max_tokens)
    body = {name: value for name, value in ask.body.items() if not name.startswith("stream")}
    return Ask("chat, not streamed", CHAT, body)


def completion(model: str, max_tokens: int) -> Ask:
    body = {"prompt": question(), "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    return Ask("completion", COMPLETIONS, {"model": model, "max_tokens": max_tokens, **body})


def highlights(model: str, max_tokens: int) -> Ask:
    document = " ".join(question() for _ in range(20))
    return Ask("highlights", "/api/highlights", {"model": model, "doc": document, "k": 5})


def continuations(model: str, max_tokens: int) -> Ask:
    messages = [{"role": "user", "content": question()}, {"role": "assistant", "content": "Once upon a time"}]
    return Ask("continuations", "/api/continue_messages", {"model": model, "messages": messages})


def guided_warm(model: str, max_tokens: int) -> Ask:
    return guided("guided, warm", model, {"structured_outputs": {"json": WARM}})


def guided_cold(model: str, max_tokens: int) -> Ask:
    return guided("guided, cold", model, {"structured_outputs": {"json": formats(fresh())}})


def guided_hostile(model: str, max_tokens: int) -> Ask:
    """A constraint that is slow to compile: refused or answered, and never an error of the server's."""
    return guided("guided, hostile", model, random.choice(list(SLOW.values()))())


def guided(name: str, model: str, constraint: Body) -> Ask:
    ask = chat(model, 32)
    body = {key: value for key, value in ask.body.items() if key != "ignore_eos"}
    return Ask(name, CHAT, body | constraint)


SCENARIOS: dict[str, Callable[[str, int], Ask]] = {
    "chat": chat,
    "plain-chat": plain_chat,
    "completions": completion,
    "highlights": highlights,
    "continuations": continuations,
    "guided-warm": guided_warm,
    "guided-cold": guided_cold,
    "guided-hostile": guided_hostile,
}
"""By the name that `--mix` knows them by."""


def parse_mix(text: str) -> dict[str, float]:
    """Read `chat:8,highlights:1`: which scenarios, and how often; raises ValueError naming what there is."""
    mix: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, weight = part.partition(":")
        if name not in (*SCENARIOS, "conversation"):
            raise ValueError(f"there is no scenario `{name}`; there are {', '.join((*SCENARIOS, 'conversation'))}")
        mix[name] = float(weight or 1)
    if not mix or sum(mix.values()) <= 0:
        raise ValueError("--mix names no scenario")
    return mix
