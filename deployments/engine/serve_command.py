"""`vllm serve` commands as data, and back. Nothing here touches the disk or the network for a model."""

import argparse
import functools
import itertools
import json
import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from vllm.engine.arg_utils import _expand_json_human_readable_numbers as expand_numbers

from config.limits import RequestLimits
from deployments.engine.command import SERVER_ONLY, Parser, check_name, fill_parser, options_of, to_argv, validate
from deployments.engine.serve_call import strip_program
from deployments.engine.shell_words import split_words
from deployments.errors import CommandError, InvalidOptionsError, InvalidRequestError
from deployments.instance_types import ParsedCommand

MAX_DEPTH = RequestLimits().max_json_depth
"""What a command may nest: as deep as a request that brings the same options."""
MAX_MESSAGE_CHARS = 1000
_ADDRESS = re.compile(r"<(?:function|class) '?(?P<name>[\w.<>]+)'?[^>]*>")
_NEGATIVE = re.compile(r"-\d*\.?\d+(e-?\d+)?")
_LINKS = re.compile(r"\s*For further information visit \S+")


@dataclass(frozen=True, slots=True)
class Reading:
    """A command, with the values of what vLLM's HTTP server is told, which may be secret."""

    parsed: ParsedCommand
    server: Mapping[str, Any] = field(default_factory=dict)


class _Reader(Parser):
    """vLLM's parser without its defaults, which keeps the words that each option was given."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words: dict[str, list[str]] = {}
        self.defaults: dict[str, Any] = {}

    def suppress_defaults(self) -> None:
        self.defaults = {action.dest: action.default for action in self._actions}
        for action in self._actions:
            action.default = argparse.SUPPRESS

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """Return what the arguments say, as plain JSON values; raises CommandError."""
        self.words = {}
        try:
            with warnings.catch_warnings(action="ignore"):  # what is deprecated can still be said
                namespace = self.parse_args(list(argv))
            said = {name: self._plain(name, value) for name, value in vars(namespace).items()}
        except InvalidRequestError:
            raise
        except RecursionError as error:
            raise CommandError(f"an option is nested more than {MAX_DEPTH} levels deep") from error
        except IndexError as error:
            raise CommandError("the last option lacks its value") from error
        except Exception as error:  # types of vLLM's configs run code of theirs, which may raise anything
            raise CommandError(clean(f"{type(error).__name__}: {error}")) from error
        return {name: value for name, value in said.items() if value is not None}

    def error(self, message: str) -> NoReturn:
        raise CommandError(clean(message))

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.dest == "api_key":  # argparse would drop the keys of all flags but the last
            arg_strings = [*self.words.get(action.dest, ()), *arg_strings]
        self.words[action.dest] = [word for word in arg_strings if word != "--"]
        return super()._get_values(action, arg_strings)

    def _plain(self, name: str, value: Any) -> Any:
        words = self.words[name]
        if value is None:
            # Said by the word `None`: that is the default, or else the word is kept, as null means "not given".
            return None if self.defaults.get(name) is None else words[0]
        try:
            return _checked(name, value)
        except TypeError:  # one of vLLM's configs, full of defaults: what was said is in the words
            values = [_from_json(word) for word in words if word]
            return _checked(name, values if isinstance(value, list) else values[0])


def parse(command: str) -> ParsedCommand:
    """Return what a `vllm serve` command says; raises EmptyCommandError, CommandError."""
    return read_words(split_words(command)).parsed


def read_words(words: list[str]) -> Reading:
    """Read a command that a shell has already split; raises CommandError."""
    environment, arguments = strip_program(words)
    tag, rest = (arguments[0], arguments[1:]) if _begins_with_model(arguments) else (None, arguments)
    known, unknown = _split_unknown(rest, tag is not None)
    said = _reader().read(known)
    models = {model for model in (tag, said.pop("model_tag", None), said.pop("model", None)) if model is not None}
    if len(models) > 1:
        raise CommandError(f"one model is served by a command, not {', '.join(sorted(models))}")
    options = {name: value for name, value in said.items() if name not in SERVER_ONLY}
    server = {name: value for name, value in said.items() if name in SERVER_ONLY}
    named = {"model": models.pop()} if models else {}
    return Reading(ParsedCommand(named | options, environment, tuple(server), tuple(unknown)), server)


def command_of(backend_options: Mapping[str, Any]) -> str:
    """Check options as `vllm serve` would, and write the command that says them, in one line.

    What `parse` makes of it are the same options, by names with underscores and in vLLM's types. Raises
    InvalidOptionsError.
    """
    reader = _reader()
    try:
        options = reader.read(to_argv(reader, backend_options))
        validate(argparse.Namespace(**reader.defaults | options))
        command = shlex.join(["vllm", "serve", *_canonical(reader, options)])
        is_same = parse(command).backend_options == options
    except InvalidRequestError as error:
        raise InvalidOptionsError("backend_options: " + error.message.removeprefix("engine_args: ")) from error
    if not is_same or not options.keys() <= {name.replace("-", "_") for name in backend_options}:
        raise InvalidOptionsError("backend_options: a value cannot be told from an option; it begins with `-`")
    return command


def refuse_unknown(words: Sequence[str]) -> None:
    """Raise CommandError naming the first unknown option, and the nearest known one."""
    for word in words:
        if word.startswith("-"):
            name = word.split("=", 1)[0].split(".", 1)[0].lstrip("-").replace("-", "_")
            try:
                check_name(name, options_of(_reader()))
            except InvalidRequestError as error:
                raise CommandError(error.message.removeprefix("engine_args: ")) from error
            raise CommandError(f"vLLM has no argument `{word}`")


def clean(message: str) -> str:
    """Return vLLM's words without addresses, links and line breaks, cut to a length that one reads."""
    text = _ADDRESS.sub(lambda match: match["name"], _LINKS.sub("", message))
    text = text.replace("invalid loads value", "invalid JSON").replace("converted to loads", "read as JSON")
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE_CHARS else text[:MAX_MESSAGE_CHARS] + "..."


def is_deeper(value: Any, depth: int) -> bool:
    """Say whether a JSON value has more than `depth` levels of lists and objects."""
    level = [value]
    for _ in range(depth + 1):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = list(itertools.chain.from_iterable(inner))
        if not level:
            return False
    return True


@functools.cache
def _reader() -> _Reader:
    reader = fill_parser(_Reader(prog="vllm serve", add_help=False))
    reader.suppress_defaults()
    return reader


def _begins_with_model(arguments: list[str]) -> bool:
    return bool(arguments) and not arguments[0].startswith("-")


def _split_unknown(words: list[str], has_model: bool) -> tuple[list[str], list[str]]:
    """Tell what vLLM's parser knows from what it does not, with the values of the latter.

    The word after an unknown option is its value, and so are further ones when they cannot be the model.
    """
    known: list[str] = []
    unknown: list[str] = []
    last: argparse.Action | None = None
    """The option that waits for its value."""
    is_unknown = is_first = False
    for position, word in enumerate(words):
        if word == "--":
            return known + words[position:], unknown
        found = _find_option(word)
        if found is not None:
            (last,) = found
            is_unknown = is_first = last is None and "=" not in word
            (unknown if last is None else known).append(word)
            last = None if "=" in word else last
        elif is_unknown and (is_first or has_model):
            unknown.append(word)
            is_first = False
        elif last is not None and last.nargs is None and word.startswith("-"):
            known[-1] += "=" + word  # a negative number; vLLM would take `-0.5` for a key of JSON
            last = None
        else:
            known.append(word)
            last = None
    return known, unknown


def _find_option(word: str) -> tuple[argparse.Action | None] | None:
    """Return vLLM's option, (None,) for one that it does not have, None for a value.

    Raises CommandError when it can be several, or reads a file.
    """
    key = word.split("=", 1)[0]
    head = key if _NEGATIVE.fullmatch(key) else key.split(".", 1)[0]
    if head == "--config":
        raise CommandError("`--config` names a file that is not here; write its options into the command")
    if head.startswith("-O"):
        head = "--optimization-level"
    dashed = "--" + head[2:].replace("_", "-") if head.startswith("--") else head
    found = _reader()._parse_optional(dashed)
    return None if found is None else (found[0],)


def _checked(name: str, value: Any) -> Any:
    """Return a value as JSON has it; raises TypeError when it is none, CommandError when a body could not hold it."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except ValueError as error:  # NaN, infinity, half of a surrogate pair
        raise CommandError(f"argument --{name.replace('_', '-')}: JSON cannot hold this value") from error
    plain = json.loads(text)
    if is_deeper(plain, MAX_DEPTH):
        raise CommandError(f"argument --{name.replace('_', '-')}: nested more than {MAX_DEPTH} levels deep")
    return plain


def _from_json(word: str) -> Any:
    try:
        return json.loads(expand_numbers(word))
    except ValueError:
        return word


def _canonical(reader: _Reader, options: Mapping[str, Any]) -> list[str]:
    """Write options in words: the model first, then `--flag value`; `--flag=value` where the value begins with `-`."""
    rest = {name: value for name, value in options.items() if name != "model"}
    model = str(options["model"])
    words = [f"--model={model}"] if model.startswith("-") else [model]
    for token in to_argv(reader, {"model": "-", **rest})[1:]:
        flag, separator, value = token.partition("=")
        is_pair = token.startswith("--") and separator and value and not value.startswith("-")
        words += [flag, value] if is_pair else [token]
    return words
