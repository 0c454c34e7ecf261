"""What stands before vLLM's arguments on a command line: environment variables and the program."""

import re
from pathlib import PurePosixPath

from deployments.errors import CommandError

_ASSIGNMENT = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)", re.DOTALL)
_PYTHON = re.compile(r"python(3(\.\d+)?)?")
_PYTHON_SWITCH = re.compile(r"-[bBdEiIOPqsSuv]+")
_WRAPPERS = ("exec", "nohup")
_SERVER_MODULES = frozenset({"vllm.entrypoints.openai.api_server", "vllm.entrypoints.launchers.api_server.entry"})
"""They take the arguments of `vllm serve`."""
_CLI_MODULES = frozenset({"vllm", "vllm.entrypoints.cli.main"})
"""They take `serve` first."""
FORMS = "write `vllm serve MODEL ...`, `python -m vllm.entrypoints.openai.api_server ...` or the arguments alone"


def strip_program(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the environment variables that a command sets, and its arguments without the program.

    words: at least one. Raises CommandError when the program is not vLLM's server.
    """
    environment, rest = _take_environment(words)
    while rest and rest[0] in _WRAPPERS:
        rest = rest[1:]
        if rest[:1] == ["env"]:
            more, rest = _take_environment(rest)
            environment |= more
    if rest[:2] == ["uv", "run"]:
        rest = rest[2:]
    if not rest:
        raise CommandError(f"the command starts no program; {FORMS}")
    return environment, _arguments(rest)


def _take_environment(words: list[str]) -> tuple[dict[str, str], list[str]]:
    environment: dict[str, str] = {}
    is_env_seen = False
    for position, word in enumerate(words):
        if match := _ASSIGNMENT.fullmatch(word):
            environment[match["name"]] = match["value"]
        elif word in ("env", "/usr/bin/env") and not is_env_seen:
            is_env_seen = True
        elif is_env_seen and word.startswith("-"):
            raise CommandError(f"`env {word}` is not understood; of `env` only variables are: `env A=b vllm serve ...`")
        else:
            return environment, words[position:]
    return environment, []


def _arguments(words: list[str]) -> list[str]:
    first, rest = words[0], words[1:]
    program = PurePosixPath(first).name
    if first.startswith("-"):
        return words
    if program == "vllm":
        return _after_serve(rest, "vllm")
    if first == "serve":
        return rest
    if _PYTHON.fullmatch(program):
        return _after_module(rest)
    # A model in a folder or of a hub has a slash; a word without one that is followed by options may be any program.
    if "/" in first and (not rest or rest[0].startswith("-")):
        return words
    raise CommandError(f"`{_short(first)}` is another program; {FORMS}")


def _after_serve(words: list[str], program: str) -> list[str]:
    if words[:1] != ["serve"]:
        given = " ".join([program, *words[:1]])
        raise CommandError(f"`{_short(given)}` is another program than `vllm serve`; {FORMS}")
    return words[1:]


def _after_module(words: list[str]) -> list[str]:
    while words and _PYTHON_SWITCH.fullmatch(words[0]):
        words = words[1:]
    module = words[1] if words[:1] == ["-m"] and len(words) > 1 else ""
    if module in _SERVER_MODULES:
        return words[2:]
    if module in _CLI_MODULES:
        return _after_serve(words[2:], f"python -m {module}")
    given = " ".join(["python", *words[:2]])
    raise CommandError(f"`{_short(given)}` is another program; {FORMS}")


def _short(text: str) -> str:
    return text if len(text) <= 100 else text[:100] + "..."
