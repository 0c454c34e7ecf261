"""What users say in conversations that grow: always the same texts for the same plan."""

import random
from dataclasses import dataclass

WORDS = tuple(
    "the a fox goose river brick garden window teacher breakfast morning letter house tree kettle road story coat "
    "runs eats finds sees opens reads carries paints forgets watches red old quiet small cold bright under before "
    "after with without while because slowly often never".split()
)

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """A load of conversations."""

    users: int
    conversations: int
    """Of each user."""
    turns: int
    """Of each conversation."""
    tokens: int
    """Of each answer."""
    system_prompts: int
    system_words: int
    question_words: int


def opening(plan: Plan, user: int, number: int) -> list[Message]:
    """Begin a conversation, under one of the system prompts that users share; those that warm up have one of theirs."""
    name = (user + number) % plan.system_prompts if number >= 0 else f"warm-up {user} {number}"
    return [{"role": "system", "content": f"Rules {name}. {some_words(f'system {name}', plan.system_words)}"}]


def question(plan: Plan, user: int, number: int, turn: int) -> Message:
    """Return what a user says in a turn; nobody else says it."""
    name = f"{user}.{number}.{turn}"
    return {"role": "user", "content": f"Question {name}: {some_words(name, plan.question_words)}?"}


def some_words(seed: str, count: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))
