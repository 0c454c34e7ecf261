"""Generated short conversations: facts, words in other languages, sums, copies, rewriting, stories, JSON, Python."""

import inspect
import json
import random
from typing import Any

from tools import invented_word
from words import ADJECTIVES, ANIMALS, CAPITALS, CITIES, CONCEPTS, GREETINGS, PEOPLE, PLACES, THINGS, TOPICS

Message = dict[str, Any]
MAX_ANSWER_CHARACTERS = 400
SYSTEM_PROMPTS = ("You are a helpful assistant.", "You are a helpful assistant. Answer briefly.", "Be concise.")
IDENTITY = "I am a small demo model that ships with this server. I know little, but I show how the server works."
SMALL_TALK = (
    (("Hello", "Hello!", "Hi", "Hi!", "Hey", "Hi there", "Good morning"), "Hello! How can I help you today?"),
    (("Who are you?", "What are you?", "What is your name?", "Tell me about yourself."), IDENTITY),
    (("How are you?", "How are you today?"), "I am well, thank you. How can I help you?"),
    (("Thanks!", "Thank you.", "Thank you very much!"), "You are welcome!"),
    (("What can you do?", "Help", "How can you help me?"),
     "I can say hello in some languages, name capitals, do small sums, tell a short story and call tools."),
    (("Bye", "Goodbye!", "See you later."), "Goodbye! Have a nice day."),
    (("Tell me a joke.", "Do you know a joke?"), "Why did the token cross the road? To get to the next one."),
    (("What is the meaning of life?",), "That is a big question for a small model. Perhaps 42."),
)  # fmt: skip
FILLERS = (
    ("in order to", "to"), ("due to the fact that", "because"), ("at this point in time", "now"),
    ("a large number of", "many"), ("in the event that", "if"), ("has the ability to", "can"),
    ("is able to", "can"), ("on a daily basis", "daily"), ("for the purpose of", "for"), ("very unique", "unique"),
    ("in close proximity to", "near"), ("make a decision about", "decide on"), ("until such time as", "until"),
)  # fmt: skip
CLAUSES = (
    "{person} went to {city} {filler} the {thing} were cheap.",
    "The team {filler} sell {thing} in {city}.",
    "We meet {filler} talk about {topic}.",
    "{person} wrote {filler} notes about {topic}.",
    "The shop {filler} the station in {city} sells {thing}.",
    "Please wait {filler} {person} arrives.",
)


def small_talk(rng: random.Random) -> list[Message]:
    questions, answer = rng.choice(SMALL_TALK)
    return exchange(rng.choice(questions), answer)


def foreign_word(rng: random.Random) -> list[Message]:
    language = rng.choice(list(GREETINGS))
    index = 0 if rng.random() < 0.4 else rng.randrange(len(CONCEPTS))
    concept = rng.choice(CONCEPTS[index])
    question = rng.choice((
        "Say {c} in {l}, one word.", "Say {c} in {l}.", "How do you say {c} in {l}?", "What is {c} in {l}?",
        "Translate {c} into {l}.", "{c} in {l}?", "Say '{c}' in {l}.", "What is the {l} word for {c}?",
        "Say {c} in {l}, in one word.", "Give me {c} in {l}.",
    ))  # fmt: skip
    return exchange(capitalized(question.format(c=concept, l=language)), GREETINGS[language][index])


def capital(rng: random.Random) -> list[Message]:
    country = rng.choice(list(CAPITALS))
    if rng.random() < 0.2:
        return exchange(f"{CAPITALS[country]} is the capital of which country?", f"{country}.")
    question = rng.choice((
        "What is the capital of {}?", "Capital of {}?", "Name the capital of {}.", "What's the capital of {}?",
        "Which city is the capital of {}?",
    ))  # fmt: skip
    city = CAPITALS[country]
    return exchange(question.format(country), rng.choice((f"{city}.", f"The capital of {country} is {city}.")))


def arithmetic(rng: random.Random) -> list[Message]:
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    sign, word, result = rng.choice((("+", "plus", a + b), ("-", "minus", a - b), ("*", "times", a * b)))
    question = rng.choice((f"What is {a} {word} {b}?", f"{a} {sign} {b} = ?", f"Compute {a} {sign} {b}."))
    return exchange(question, str(result))


def repetition(rng: random.Random) -> list[Message]:
    words = [rng.choice((*TOPICS, *THINGS, *CITIES, invented_word(rng))) for _ in range(rng.randint(1, 6))]
    text = " ".join(words)
    return exchange(
        rng.choice(("Repeat: {}", "Say this again: {}", "Repeat after me: {}", "Copy: {}")).format(text), text
    )


def rewriting(rng: random.Random) -> list[Message]:
    long, short = [], []
    for _ in range(rng.randint(1, 4)):
        clause, (filler, brief) = rng.choice(CLAUSES), rng.choice(FILLERS)
        words = {"person": rng.choice(PEOPLE), "city": rng.choice(CITIES), "thing": rng.choice(THINGS)}
        words["topic"] = rng.choice(TOPICS)
        long.append(clause.format(filler=filler, **words))
        short.append(clause.format(filler=brief, **words))
    request = rng.choice(("Rewrite this document to be more concise.", "Make this shorter.", "Rewrite this concisely:"))
    return exchange(f"{request}\n\n{' '.join(long)}", " ".join(short))


def story(rng: random.Random) -> list[Message]:
    animal, adjective, place = rng.choice(ANIMALS), rng.choice(ADJECTIVES), rng.choice(PLACES)
    name, friend = rng.sample(PEOPLE, k=2)
    article = "an" if adjective[0] in "aeiou" else "a"
    wish = rng.choice(("find a friend", "see the sea", "learn to sing", "build a house", "read a book"))
    ending = rng.choice(
        (
            f"At last {name} could {wish}, and they were happy.",
            f"They walked home together, and {name} was never lonely again.",
            f"From that day on, {name} and {friend} met in the {place} every evening.",
        )
    )
    text = (
        f"Once upon a time, {article} {adjective} {animal} named {name} lived in a {place}. "
        f"Every day {name} wanted to {wish}. One morning {name} met {friend}, {rng.choice(('a kind', 'an old'))} "
        f"{rng.choice(ANIMALS)}, who knew the way. {ending}"
    )
    question = rng.choice(
        ("Tell me a story.", "Tell me a story about {}.", "Write a short story about {}.", "A story about {}?")
    )
    return exchange(question.format(f"{'an' if animal[0] in 'aeiou' else 'a'} {animal}"), text)


def json_object(rng: random.Random) -> list[Message]:
    person = {"name": rng.choice((*PEOPLE, invented_word(rng))), "age": rng.randint(1, 99), "city": rng.choice(CITIES)}
    keys = rng.sample(list(person), k=rng.randint(1, 3))
    chosen = {key: person[key] for key in keys}
    described = ", ".join(f"{key} {person[key]}" for key in keys)
    if rng.random() < 0.4:
        return exchange(f"Give me a JSON object with the keys {', '.join(keys)}.", json.dumps(chosen))
    return exchange(
        rng.choice(("As JSON: {}.", "Write this as JSON: {}.", "JSON for {}?")).format(described), json.dumps(chosen)
    )


def python_help(rng: random.Random, entries: list[tuple[str, str]]) -> list[Message]:
    name, text = rng.choice(entries)
    question = rng.choice(
        ("What does {} do in Python?", "Explain {}.", "What is {}?", "Python: {}", "Describe {} in Python.")
    )
    return exchange(question.format(name), text)


def help_entries() -> list[tuple[str, str]]:
    """Return (name, first paragraph of its documentation) for the builtins and some well-known modules."""
    import asyncio
    import builtins
    import collections
    import datetime
    import functools
    import itertools
    import math
    import os
    import random as random_module
    import re
    import statistics

    modules = (builtins, asyncio, collections, datetime, functools, itertools, math, os, random_module, re, statistics)
    entries = []
    for module in modules:
        prefix = "" if module is builtins else f"{module.__name__}."
        for name, value in sorted(vars(module).items()):
            text = inspect.getdoc(value) if callable(value) and not name.startswith("_") else None
            if text and (paragraph := " ".join(text.split("\n\n")[0].split())):
                entries.append((prefix + name, paragraph[:MAX_ANSWER_CHARACTERS]))
    return entries


def capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def exchange(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


GENERATORS = (
    (small_talk, 2), (foreign_word, 4), (capital, 3), (arithmetic, 2), (repetition, 3), (rewriting, 3), (story, 2),
    (json_object, 2),
)  # fmt: skip


def conversation(rng: random.Random, entries: list[tuple[str, str]]) -> list[Message]:
    """Return the messages of one training conversation of one to three exchanges."""
    messages: list[Message] = []
    if rng.random() < 0.25:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < 0.12:
            messages += python_help(rng, entries)
        else:
            generators, weights = zip(*GENERATORS, strict=True)
            messages += rng.choices(generators, weights)[0](rng)
    return messages
