"""Generated Hermes tool conversations: so many names and phrasings that the model has to read them."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from words import CITIES, CURRENCIES, DAYS, GREETINGS, NOUNS, PEOPLE, SYLLABLES, SYMBOLS, THINGS, TOPICS, VERBS

Message = dict[str, Any]
INVENTED_SHARE = 0.35
COMPOSED_SHARE = 0.45
UNMATCHED_SHARE = 0.22
ANSWERED_SHARE = 0.2
HELD_OUT_EVERY = 8


def invented_word(rng: random.Random) -> str:
    """Return a word that exists nowhere, so that it can only be copied."""
    return "".join(rng.choices(SYLLABLES, k=rng.randint(2, 3))).capitalize()


def pick(words: tuple[str, ...]) -> Callable[[random.Random], str]:
    """Make a generator of values: one of the words, or an invented one."""
    return lambda rng: invented_word(rng) if rng.random() < INVENTED_SHARE else rng.choice(words)


def number(low: int, high: int) -> Callable[[random.Random], int]:
    return lambda rng: rng.randint(low, high)


def email(rng: random.Random) -> str:
    return f"{pick(PEOPLE)(rng).lower()}@{invented_word(rng).lower()}.com"


def clock(rng: random.Random) -> str:
    return f"{rng.randint(0, 23):02d}:{rng.choice((0, 15, 30, 45)):02d}"


@dataclass(frozen=True)
class Argument:
    names: tuple[str, ...]
    type: str
    description: str
    value: Callable[[random.Random], Any]


@dataclass(frozen=True)
class Tool:
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    arguments: tuple[Argument, ...]
    questions: tuple[str, ...]
    held_out: bool = False


CITY = Argument(("city", "location", "place", "city_name"), "string", "The city, e.g. Rome", pick(CITIES))
PERSON = Argument(("name", "person", "contact", "recipient"), "string", "Name of the person", pick(PEOPLE))
MAIL = Argument(("to", "email", "address"), "string", "The email address", email)
TOPIC = Argument(("query", "q", "topic", "text"), "string", "What to look for", pick(TOPICS))
THING = Argument(("item", "product", "article"), "string", "The product", pick(THINGS))
COUNT = Argument(("quantity", "count", "amount"), "integer", "How many", number(1, 99))
SYMBOL = Argument(("symbol", "ticker", "stock"), "string", "The ticker symbol", pick(SYMBOLS))
TIME = Argument(("time", "at", "start_time"), "string", "Time as HH:MM", clock)
DAY = Argument(("day", "date", "when"), "string", "The day", lambda rng: rng.choice(DAYS))
LANGUAGE = Argument(
    ("language", "target_language", "to"), "string", "The language", lambda r: r.choice(list(GREETINGS))
)
SOURCE = Argument(("from_currency", "source", "base"), "string", "Currency code", lambda r: r.choice(CURRENCIES))
TARGET = Argument(("to_currency", "target", "quote"), "string", "Currency code", lambda r: r.choice(CURRENCIES))
FIRST = Argument(("a", "x", "first"), "integer", "The first number", number(0, 999))
SECOND = Argument(("b", "y", "second"), "integer", "The second number", number(0, 999))
MINUTES = Argument(("minutes", "duration", "length_minutes"), "integer", "Minutes", number(1, 120))
TITLE = Argument(("title", "name", "song"), "string", "The title", pick(TOPICS))

TOOLS = (
    Tool(("get_weather", "weather", "current_weather", "fetch_weather", "get_current_weather"),
         ("Get the current weather", "Get the weather in a city", "Current weather for a location"), (CITY,),
         ("What is the weather in {0}?", "What's the weather like in {0}?", "How is the weather in {0} right now?",
          "Weather in {0}?", "Is it raining in {0}?", "Tell me the weather in {0}.", "Do I need an umbrella in {0}?",
          "What is the weather in {0} today?")),
    Tool(("get_forecast", "weather_forecast", "forecast"), ("Get the weather forecast for a day",), (CITY, DAY),
         ("What will the weather be in {0} on {1}?", "Forecast for {0}, {1}.", "Will it rain in {0} {1}?")),
    Tool(("get_time", "current_time", "time_in"), ("Get the current time in a city", "Local time"), (CITY,),
         ("What time is it in {0}?", "Current time in {0}?", "Tell me the time in {0}.")),
    Tool(("search", "web_search", "search_web", "find_pages"), ("Search the web", "Find pages about a topic"), (TOPIC,),
         ("Search the web for {0}.", "Find pages about {0}.", "Look up {0}.", "Can you search for {0}?")),
    Tool(("send_email", "email", "send_mail"), ("Send an email",), (MAIL, TOPIC),
         ("Send an email to {0} about {1}.", "Write to {0} about {1}.", "Email {0} about {1}, please.")),
    Tool(("get_stock_price", "stock_price", "quote"), ("Get the price of a stock",), (SYMBOL,),
         ("What is the price of {0}?", "How much is {0} stock?", "Stock price of {0}?", "Price of {0} shares?")),
    Tool(("order", "buy_item", "place_order", "order_product"), ("Order a product",), (THING, COUNT),
         ("Order {1} {0}.", "Buy {1} {0}, please.", "I need {1} {0}.", "Please order {1} {0} for me.")),
    Tool(("translate", "translate_text"), ("Translate a text",), (TOPIC, LANGUAGE),
         ("Translate {0} into {1}.", "How do you say {0} in {1}?", "Translate {0} to {1}, please.")),
    Tool(("convert_currency", "exchange"), ("Convert an amount of money",), (COUNT, SOURCE, TARGET),
         ("Convert {0} {1} to {2}.", "How much is {0} {1} in {2}?", "Change {0} {1} into {2}.")),
    Tool(("add", "add_numbers", "sum"), ("Add two numbers",), (FIRST, SECOND),
         ("Add {0} and {1}.", "What is {0} plus {1}?", "Sum {0} and {1}.", "Compute {0} + {1}.")),
    Tool(("multiply", "product", "times"), ("Multiply two numbers",), (FIRST, SECOND),
         ("Multiply {0} by {1}.", "What is {0} times {1}?", "Compute {0} * {1}.")),
    Tool(("set_timer", "start_timer"), ("Start a timer",), (MINUTES,),
         ("Set a timer for {0} minutes.", "Start a {0} minute timer.", "Wake me in {0} minutes.")),
    Tool(("set_alarm", "alarm"), ("Set an alarm",), (TIME,),
         ("Set an alarm for {0}.", "Wake me at {0}.", "Alarm at {0}, please.")),
    Tool(("call_person", "phone", "make_call"), ("Call somebody",), (PERSON,),
         ("Call {0}.", "Phone {0}, please.", "Can you call {0}?", "Ring {0}.")),
    Tool(("create_event", "add_event", "schedule"), ("Put an event into the calendar",), (TITLE, DAY, TIME),
         ("Schedule {0} on {1} at {2}.", "Add {0} to my calendar, {1} at {2}.", "Plan {0} for {1} at {2}.")),
    Tool(("play_music", "play", "play_song"), ("Play a song",), (TITLE,),
         ("Play {0}.", "Put on {0}.", "I want to hear {0}.", "Please play {0}.")),
    Tool(("find_flights", "search_flights"), ("Find flights",), (CITY, DAY),
         ("Find flights to {0} on {1}.", "I want to fly to {0} {1}.", "Flights to {0}, {1}?")),
    Tool(("book_table", "reserve_table"), ("Reserve a table",), (COUNT, TIME),
         ("Book a table for {0} at {1}.", "Reserve a table for {0} people at {1}.")),
    Tool(("lookup_user", "get_user", "find_user"), ("Look up a user",), (PERSON,),
         ("Who is {0}?", "Look up the user {0}.", "Find the user {0}.", "Show me the profile of {0}.")),
    Tool(("get_population", "population"), ("Get the population of a city",), (CITY,),
         ("How many people live in {0}?", "What is the population of {0}?"), held_out=True),
    Tool(("write_note", "save_note"), ("Save a note",), (TOPIC,),
         ("Write a note about {0}.", "Save a note: {0}.", "Note down {0}."), held_out=True),
    Tool(("cancel_order", "remove_order"), ("Cancel the order of a product",), (THING,),
         ("Cancel my order of {0}.", "I no longer want the {0}.", "Remove the {0} from my order."), held_out=True),
    Tool(("subtract", "minus"), ("Subtract two numbers",), (FIRST, SECOND),
         ("Subtract {1} from {0}.", "What is {0} minus {1}?"), held_out=True),
)  # fmt: skip


def composed_tool(rng: random.Random, *, held_out: bool = False) -> Tool:
    """Make a tool of a verb and a noun, so that there are too many names to learn by heart: they have to be read.

    Every HELD_OUT_EVERYth pair of words is left for the evaluation.
    """
    while True:
        verb, noun = rng.randrange(len(VERBS)), rng.randrange(len(NOUNS))
        if ((verb * 7 + noun * 3) % HELD_OUT_EVERY == 0) == held_out:
            break
    action, thing = VERBS[verb], NOUNS[noun]
    name = Argument(
        (thing, "name", "id", f"{thing}_name", "target"), "string", f"The {thing}", pick((*THINGS, *PEOPLE))
    )
    value = Argument(("value", "level", "number", "count"), "integer", "The value", number(0, 999))
    arguments = (name,) if rng.random() < 0.6 else (name, value)
    tail = " with {1}" if len(arguments) == 2 else ""
    wordings = ("{v} the {n} {{0}}{t}.", "Please {v} the {n} {{0}}{t}.", "Can you {v} the {n} called {{0}}{t}?",
                "I want to {v} the {n} {{0}}{t}.", "{v} {n} {{0}}{t}")  # fmt: skip
    questions = (text.format(v=action, n=thing, t=tail) for text in wordings)
    return Tool(
        (f"{action}_{thing}", f"{thing}_{action}", f"{action}{thing.capitalize()}"),
        (
            f"{action.capitalize()} a {thing}",
            f"{action.capitalize()} the given {thing}",
            f"Use this to {action} a {thing}",
        ),
        arguments,
        tuple(text[0].upper() + text[1:] for text in questions),
        held_out,
    )


@dataclass(frozen=True)
class ToolCase:
    """One generated question with the call that answers it; `call` is None when no tool fits."""

    tools: list[dict[str, Any]]
    question: str
    call: dict[str, Any] | None


def declared(tool: Tool, rng: random.Random) -> tuple[dict[str, Any], list[str]]:
    """Return the tool as an OpenAI function declaration under random names, and the argument names chosen."""
    names: list[str] = []
    properties: dict[str, Any] = {}
    for argument in tool.arguments:
        name = rng.choice([name for name in argument.names if name not in properties])
        names.append(name)
        properties[name] = {"type": argument.type}
        if rng.random() < 0.5:
            properties[name]["description"] = argument.description
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.8:
        schema["required"] = names
    function = {"name": rng.choice(tool.names), "description": rng.choice(tool.descriptions), "parameters": schema}
    if rng.random() < 0.2:
        del function["description"]
    return {"type": "function", "function": function}, names


def tool_case(
    rng: random.Random, *, held_out: bool = False, composed: bool = False, unmatched: bool = False
) -> ToolCase:
    """Generate a question and the tools it is asked with; held-out tools are never in training data."""
    pool = [tool for tool in TOOLS if not tool.held_out]
    wanted = (
        composed_tool(rng, held_out=held_out) if composed else rng.choice([t for t in TOOLS if t.held_out == held_out])
    )
    count = rng.choice((0, 0, 1, 2))
    others = [composed_tool(rng) if rng.random() < COMPOSED_SHARE else rng.choice(pool) for _ in range(count)]
    others = [tool for tool in others if not set(tool.names) & set(wanted.names)]
    values = [argument.value(rng) for argument in wanted.arguments]
    question = rng.choice(wanted.questions).format(*values)
    if unmatched:
        others = others or [rng.choice([tool for tool in pool if tool is not wanted])]
        return ToolCase([declared(tool, rng)[0] for tool in others], question, None)
    declaration, names = declared(wanted, rng)
    tools = [declaration, *(declared(tool, rng)[0] for tool in others)]
    rng.shuffle(tools)
    call = {"name": declaration["function"]["name"], "arguments": dict(zip(names, values, strict=True))}
    return ToolCase(tools, question, call)


def tool_conversation(rng: random.Random) -> tuple[list[Message], list[dict[str, Any]]]:
    """Return (messages, tools) of one training conversation."""
    case = tool_case(rng, composed=rng.random() < COMPOSED_SHARE, unmatched=rng.random() < UNMATCHED_SHARE)
    messages: list[Message] = [{"role": "user", "content": case.question}]
    if case.call is None:
        return [*messages, {"role": "assistant", "content": "I have no tool for that."}], case.tools
    messages.append({"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": case.call}]})
    if rng.random() < ANSWERED_SHARE:
        result = {"result": rng.choice([rng.randint(0, 99), invented_word(rng), "done"])}
        messages += [
            {"role": "tool", "content": json.dumps(result)},
            {"role": "assistant", "content": f"The answer is {result['result']}."},
        ]
    return messages, case.tools
