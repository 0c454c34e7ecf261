"""What a request may ask for: one check a row, all of them before any engine work.

The checks know names and bounds only; types and everything else are vLLM's to judge, and it answers 400 itself. Numbers
are the exception: vLLM reads "5" and 5.0 as 5, so a bound on them is only worth something when they are numbers.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from config.limits import RequestLimits
from deployments.errors import ContextLengthError, InvalidRequestError
from deployments.ingress import media
from deployments.ingress.parsing import depth_over, levels, parsed_text, size_bytes, too_deep
from deployments.types import ModelInfo

Body = Mapping[str, Any]

MAX_FIELDS = 1024
"""Far more than any route has."""
NEUTRAL: Mapping[str, Any] = {"best_of": 1, "modalities": ["text"]}
"""Fields of OpenAI's that vLLM does not know, with the value that asks for what happens anyway."""
BATCHES = tuple("prompt input tokens documents queries items data_1 data_2 text_1 text_2".split())
"""Fields that hold one text or conversation, or a list of them; token ids stand for a text."""


def validate(path: str, body: Body, info: ModelInfo | None, limits: RequestLimits) -> None:
    """Check a request's fields; raises InvalidRequestError naming the field and the bound.

    `info` is None while the model has not been ready yet: what depends on the model is then left to the engine.
    """
    if len(body) > MAX_FIELDS:
        raise InvalidRequestError(f"A request may have {MAX_FIELDS} fields, not {len(body)}.")
    for name, most in at_most(limits).items():
        check_whole(name, body.get(name), most)
    for name, (items, chars) in lists_of_texts(limits).items():
        check_texts(name, body.get(name), items, chars)
    bounds = lists(limits)
    for name, value in body.items():
        if name not in BATCHES:
            check_length(name, value, bounds.get(name, limits.max_token_ids))
    if not isinstance(body.get("stream"), bool | None):
        raise InvalidRequestError("`stream` must be true or false.", "stream")  # vLLM reads "on" and 1 as true
    check_sequences(body, limits)
    check_beams(body, limits)
    check_input_items(body, limits)
    check_parts(body, limits)
    check_constraints(body, limits)
    check_refused(body, limits)
    if info is not None:
        check_known(path, body, info, limits)
        check_window(body, info)
        check_ids(body, info.vocab_size)
        check_template(body, info)
    media.check(body, info.media_domains if info is not None else frozenset())


def at_most(limits: RequestLimits) -> dict[str, int]:
    return {
        "n": limits.max_choices,
        "top_logprobs": limits.max_logprobs,
        "logprobs": limits.max_logprobs,
        "prompt_logprobs": limits.max_logprobs,
    }


def lists_of_texts(limits: RequestLimits) -> dict[str, tuple[int, int]]:
    return {
        "stop": (limits.max_stop_sequences, limits.max_stop_chars),
        "stop_sequences": (limits.max_stop_sequences, limits.max_stop_chars),
        "bad_words": (limits.max_bad_words, limits.max_bad_word_chars),
    }


def lists(limits: RequestLimits) -> dict[str, int]:
    return {
        "logit_bias": limits.max_logit_bias,
        "allowed_token_ids": limits.max_token_ids,
        "stop_token_ids": limits.max_token_ids,
        "logprob_token_ids": limits.max_logprobs,
        "messages": limits.max_messages,
        "tools": limits.max_tools,
    }


def check_whole(name: str, value: Any, most: int) -> None:
    if value is None or (name == "logprobs" and isinstance(value, bool)):
        return
    if type(value) is not int:
        raise InvalidRequestError(f"`{name}` must be an integer.", name)
    if not 0 <= value <= most:
        raise InvalidRequestError(f"`{name}` must be between 0 and {most}, not {shorten(value)}.", name)


def check_texts(name: str, value: Any, items: int, chars: int) -> None:
    texts = [value] if isinstance(value, str) else value or []
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidRequestError(f"`{name}` must be a list of texts.", name)
    if len(texts) > items:
        raise InvalidRequestError(f"`{name}` may have {items} texts, not {len(texts)}.", name)
    for text in texts:
        if not 0 < len(text) <= chars:
            raise InvalidRequestError(f"A text of `{name}` must have 1 to {chars} characters, not {len(text)}.", name)


def check_length(name: str, value: Any, most: int) -> None:
    if isinstance(value, list | dict) and len(value) > most:
        raise InvalidRequestError(f"`{name}` may have {most} entries, not {len(value)}.", name)


def check_sequences(body: Body, limits: RequestLimits) -> None:
    sizes = {name: batch_size(body.get(name)) for name in BATCHES}
    for name, size in sizes.items():
        if size > limits.max_prompts:
            raise InvalidRequestError(f"A batch may have {limits.max_prompts} prompts, not {size}.", name)
    prompts, n = max(sizes.values()), body.get("n")
    if isinstance(n, int) and prompts * n > limits.max_sequences:
        raise InvalidRequestError(f"{prompts} prompts with n={n} are over {limits.max_sequences} answers.", "n")


def check_beams(body: Body, limits: RequestLimits) -> None:
    """Bound beam search as what it is to the engine: log-probabilities of twice as many tokens as it has beams."""
    n = body.get("n")
    if body.get("use_beam_search") and is_constrained(body):
        raise InvalidRequestError("With `use_beam_search` no constraint would hold.", "use_beam_search")
    if body.get("use_beam_search") and isinstance(n, int) and 2 * n > limits.max_logprobs:
        raise InvalidRequestError(f"With `use_beam_search`, `n` may be {limits.max_logprobs // 2}, not {n}.", "n")


def is_constrained(body: Body) -> bool:
    form = body.get("response_format")
    has_form = form is not None and not (isinstance(form, dict) and form.get("type") == "text")
    is_forced = body.get("tool_choice") not in (None, "auto", "none")
    return has_form or is_forced or body.get("structured_outputs") is not None


def check_input_items(body: Body, limits: RequestLimits) -> None:
    items = body.get("input")
    if isinstance(items, list) and len(items) > limits.max_input_items and any(type(item) is dict for item in items):
        raise InvalidRequestError(f"`input` may have {limits.max_input_items} items, not {len(items)}.", "input")


def batch_size(value: Any) -> int:
    """Count the prompts of a batch; a list of token ids is one prompt."""
    if not isinstance(value, list) or not value:
        return 1
    return 1 if is_token_ids(value) else len(value)


def check_parts(body: Body, limits: RequestLimits) -> None:
    """Bound the lists inside messages: of each entry that is no content part vLLM makes an error, in slow ways."""
    for name in ("messages", "input", "system"):
        value = body.get(name)
        if isinstance(value, list) and count_parts(value) > limits.max_parts:
            raise InvalidRequestError(f"`{name}` may have {limits.max_parts} content parts.", name)


def count_parts(items: list[Any]) -> int:
    inside = (item for item in items if not is_token_ids(item))
    return sum(len(one) for item in inside for level in levels(item) for one in level if type(one) is list)


def is_token_ids(value: Any) -> bool:
    return type(value) is list and bool(value) and type(value[0]) is int


def check_constraints(body: Body, limits: RequestLimits) -> None:
    """Bound what a grammar is compiled from, wherever a request may write it."""
    if not isinstance(body.get("structured_outputs"), dict | None):
        raise InvalidRequestError("`structured_outputs` must be an object.", "structured_outputs")
    for name, value in constraints(body):
        if type(value) not in (dict, list, str):
            continue
        if depth_over(value, limits.max_schema_depth):
            raise too_deep(f"The constraint in `{name}`", limits.max_schema_depth, name)
        if size_bytes(value) > limits.max_schema_bytes:
            raise InvalidRequestError(f"The constraint in `{name}` is over {limits.max_schema_bytes} bytes.", name)


def constraints(body: Body) -> Iterator[tuple[str, Any]]:
    for name in ("response_format", "structured_outputs", "text", "output_config", "spec"):
        yield name, body.get(name)
    outputs = body.get("structured_outputs")
    for kind in ("json", "structural_tag"):  # both may be JSON in a text
        if isinstance(outputs, dict) and isinstance(text := outputs.get(kind), str):
            yield "structured_outputs", parsed_text("structured_outputs", text)
    tools = body.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        yield "tools", tool


def check_refused(body: Body, limits: RequestLimits) -> None:
    for name in limits.refused_fields & body.keys():
        if body[name] is not None:
            raise InvalidRequestError(f"`{name}` may not be used here.", name)


def check_known(path: str, body: Body, info: ModelInfo, limits: RequestLimits) -> None:
    fields = known_fields(info.openapi)
    known = fields.get(path)
    if not known:
        return
    # `/v1/messages/count_tokens`, `.../render`: what only the route above knows has no meaning here, and changes none.
    known |= fields.get(path.rpartition("/")[0], frozenset())
    for name in body:
        if name in known or name in limits.ignored_fields:
            continue
        if body[name] is not None and body[name] != NEUTRAL.get(name):
            raise InvalidRequestError(
                f"`{shorten(name)}` is not a field of `{path}`: it would have no effect.", name[:64]
            )


@functools.lru_cache(maxsize=64)
def known_fields(openapi: str) -> Mapping[str, frozenset[str]]:
    """Return the field names of each POST route's body, from an OpenAPI document."""
    document = json.loads(openapi)
    found = {}
    for path, methods in document.get("paths", {}).items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        found[path] = frozenset(field_names(schema, document))
    return found


def field_names(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[str]:
    if reference := schema.get("$ref"):
        yield from field_names(document["components"]["schemas"][reference.rsplit("/", 1)[1]], document)
    yield from schema.get("properties", {})
    for several in ("anyOf", "oneOf", "allOf"):
        for one in schema.get(several, ()):
            yield from field_names(one, document)


def check_window(body: Body, info: ModelInfo) -> None:
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if type(value) is not int or value < 0:
            raise InvalidRequestError(f"`{name}` must be an integer of 0 or more.", name)
        if value > info.max_model_len:
            window = f"the context window of `{info.name}` is {info.max_model_len} tokens"
            raise ContextLengthError(f"`{name}` is {shorten(value)}, but {window}.", name)


def check_ids(body: Body, vocab_size: int) -> None:
    """Check that token ids are in the vocabulary, wherever a request may write some."""
    for name in ("allowed_token_ids", "stop_token_ids", "tokens", "prompt", "input", "logprob_token_ids"):
        value = body.get(name)
        for ids in value if isinstance(value, list) and value and isinstance(value[0], list) else [value]:
            check_id_list(name, ids, vocab_size)
    bias = body.get("logit_bias")
    if isinstance(bias, dict):
        check_id_list("logit_bias", [whole_or_none(key) for key in bias], vocab_size)


def check_id_list(name: str, ids: Any, vocab_size: int) -> None:
    if not isinstance(ids, list) or not ids:
        return
    if not (isinstance(ids[0], int | float) or name.endswith(("_ids", "_bias"))):
        return  # texts, or what vLLM refuses itself
    if set(map(type, ids)) != {int}:
        raise InvalidRequestError(f"`{name}` must hold token ids, which are integers.", name)
    for extreme in (min(ids), max(ids)):
        if not 0 <= extreme < vocab_size:
            text = f"`{name}` has the token id {shorten(extreme)}; ids of this model are 0 to {vocab_size - 1}."
            raise InvalidRequestError(text, name)


def whole_or_none(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def check_template(body: Body, info: ModelInfo) -> None:
    if body.get("chat_template") is not None and not info.allow_chat_template:
        raise InvalidRequestError("`chat_template` of a request is not allowed for this model.", "chat_template")
    given = body.get("chat_template_kwargs")
    if given is None:
        return
    if not isinstance(given, dict):
        raise InvalidRequestError("`chat_template_kwargs` must be an object.", "chat_template_kwargs")
    if unknown := sorted(given.keys() - info.chat_template_kwargs):
        known = ", ".join(sorted(info.chat_template_kwargs)) or "none"
        text = f"The chat template of `{info.name}` does not read `{shorten(unknown[0])}`; it reads: {known}."
        raise InvalidRequestError(text, "chat_template_kwargs")


def shorten(value: object) -> str:
    """Write a client's value into a message without repeating megabytes of it."""
    try:
        text = str(value)
    except ValueError:  # an integer of more digits than Python converts
        return "too large"
    return text if len(text) <= 64 else text[:64] + "..."
