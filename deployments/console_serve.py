"""`vllm-graph serve` and `vllm-graph config`: a `vllm serve` command as a config of the graph."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from config.models import MODEL_APP_PREFIX, MODEL_NAME_PATTERN, PROJECT_ROOT
from config.settings import expand_variables
from deployments.instances.commands import MODULE, ONLY_PARSE
from deployments.launch import LaunchError

PROGRAM = (sys.executable, "-W", "ignore", "-m", MODULE)
BUILDER = "deployments.app:build_model"
KEYS_VARIABLE = "VLLM_GRAPH_INFERENCE_KEYS"
HONOURED = frozenset({"host", "port", "api_key", "chat_template"})
"""What vLLM's HTTP server is told, and the graph does, too."""
MAX_NAME_CHARS = 50


@dataclass(frozen=True, slots=True)
class ServeCommand:
    """A `vllm serve` command that vLLM's parser has accepted."""

    command: str
    """In one line, without what belongs to vLLM's HTTP server."""
    options: Mapping[str, Any]
    environment: Mapping[str, str]
    server: Mapping[str, Any]
    """What vLLM's HTTP server is told; keys are among it."""

    @property
    def name(self) -> str:
        """What clients write as `model`: the first `--served-model-name` that can be one, else the model's own name."""
        for name in self.options.get("served_model_name") or ():
            if re.fullmatch(MODEL_NAME_PATTERN, name):
                return str(name)
        own = str(self.options["model"]).rstrip("/").rsplit("/", 1)[-1]
        return re.sub(r"[^a-zA-Z0-9._-]+", "-", own).strip("-.")[:MAX_NAME_CHARS] or "model"


def read_command(words: Sequence[str]) -> ServeCommand:
    """Have vLLM's parser read a command: its words, or a single one that is the whole of it, as a shell has it.

    Raises LaunchError, in the parser's words.
    """
    about = words[0] if len(words) == 1 else list(words)
    about = words[0] if len(words) == 1 else list(words)
    question = json.dumps({"number": 0, "do": "read", "about": about}).encode() + b"\n"
    # A process of its own: vLLM would stay in the memory of this one as long as the graph runs. It ends with its stdin.
    with subprocess.Popen(
        PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT_ROOT, env={**os.environ, **ONLY_PARSE}
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(question)
        process.stdin.flush()
        line = process.stdout.readline()
    if not line:
        raise LaunchError("vLLM's parser ended before it answered")
    answer = json.loads(line)
    if "error" in answer:
        raise LaunchError(answer["message"].removeprefix("backend_options: ") or "vLLM's parser failed")
    value = answer["value"]
    parsed = value["parsed"]
    return ServeCommand(value["command"], parsed["backend_options"], parsed["environment"], value["server"])


def wants_help(words: Sequence[str]) -> bool:
    return any(word in ("-h", "--help") or word.startswith("--help=") for word in words)


def print_help(words: Sequence[str]) -> None:
    """Print vLLM's flags, our words on top; `--help=ModelConfig` prints a part of them."""
    flags = [word for word in words if wants_help([word])]
    subprocess.run([*PROGRAM, *flags], cwd=PROJECT_ROOT, env={**os.environ, **ONLY_PARSE})


def to_application(command: ServeCommand, shipped: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the application of a command's model.

    shipped: the application `model-*` of serve_config.yaml, for Serve's options of the engine. folder: where the
    command was given; a model that lies there is named by its whole path. Raises LaunchError.
    """
    options = dict(command.options)
    options.pop("served_model_name", None)
    if (folder / options["model"]).is_dir():
        options["model"] = str((folder / options["model"]).resolve())
    args: dict[str, Any] = {"name": command.name, "engine_args": options}
    if template := command.server.get("chat_template"):
        is_file = "{{" not in template and "{%" not in template
        args["request_format"] = str((folder / template).resolve()) if is_file else template
    if command.environment:
        args["environment"] = dict(command.environment)
    _refuse_variables(args)
    kept = {name: value for name, value in shipped["args"].items() if name == "num_cpus"}
    named = {"name": MODEL_APP_PREFIX + command.name, "route_prefix": None, "import_path": BUILDER}
    return {**named, "args": {**args, **kept}, "deployments": shipped["deployments"]}


def to_config(command: ServeCommand, shipped: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the shipped config with a command's model as the only one, at the command's address."""
    model = to_application(command, shipped_model(shipped), folder)
    others = [application for application in shipped["applications"] if application["import_path"] != BUILDER]
    address = {name: command.server[name] for name in ("host", "port") if name in command.server}
    http_options = {**shipped["http_options"], **address}
    return {**shipped, "http_options": http_options, "applications": [*others, model]}


def shipped_model(config: Mapping[str, Any]) -> dict[str, Any]:
    found: list[dict[str, Any]] = [each for each in config["applications"] if each["import_path"] == BUILDER]
    return found[0]


def remarks(command: ServeCommand) -> list[str]:
    """Say what of a command is not done, or not as vLLM does it."""
    said = [f"--{name.replace('_', '-')} is ignored" for name in command.server if name not in HONOURED]
    names = [name for name in command.options.get("served_model_name") or () if name != command.name]
    if names:
        said.append(f"the model has one name, `{command.name}`; not {', '.join(f'`{name}`' for name in names)}")
    return said


def keys_of(command: ServeCommand, environment: Mapping[str, str]) -> list[str]:
    """Return the API keys: those of the command or, as vLLM does, VLLM_API_KEY; raises LaunchError."""
    keys = [key for key in command.server.get("api_key") or [environment.get("VLLM_API_KEY")] if key]
    for key in keys:
        if "," in key:
            raise LaunchError("an API key cannot have a comma")
        if len(key) < 16:
            raise LaunchError("an API key must have at least 16 characters")
    return keys


def to_yaml(command: ServeCommand, shipped: Mapping[str, Any], folder: Path) -> str:
    """Return what stands under `applications:` for a command's model, with comments."""
    said = [command.command, *remarks(command)]
    said += [f"--{name.replace('_', '-')} is the gateway's: see http_options and auth" for name in _gateways(command)]
    comments = [f"# {line}" for text in said for line in text.splitlines()]
    text = yaml.safe_dump(
        [to_application(command, shipped_model(shipped), folder)], sort_keys=False, allow_unicode=True
    )
    return "".join(f"  {line}\n" for line in [*comments, *text.splitlines()])


def _gateways(command: ServeCommand) -> list[str]:
    return [name for name in ("host", "port", "api_key") if name in command.server]


def _refuse_variables(args: Mapping[str, Any]) -> None:
    try:
        is_plain = expand_variables(args) == args
    except ValueError:
        is_plain = False
    if not is_plain:
        raise LaunchError("a value has `${...}`, which the config would replace by a variable of the environment")
