"""vLLM's own arguments: names and types come from its parser, so they never go stale here."""

import argparse
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser

from config.models import PROJECT_ROOT
from deployments.engine.arguments import underscored
from deployments.errors import InvalidRequestError

ParserT = TypeVar("ParserT", bound=argparse.ArgumentParser)
SERVER_ONLY = frozenset(
    """
    host port grpc grpc_port uds uvicorn_log_level disable_uvicorn_access_log disable_access_log_for_endpoints api_key
    allow_credentials allowed_origins allowed_methods allowed_headers ssl_keyfile ssl_certfile ssl_ca_certs
    enable_ssl_refresh ssl_cert_reqs ssl_ciphers root_path middleware enable_request_id_headers headless
    api_server_count config h11_max_incomplete_event_size h11_max_header_count data_parallel_supervisor_port
    dp_supervisor_probe_interval_s dp_supervisor_probe_timeout_s dp_supervisor_probe_failure_threshold
    data_parallel_multi_port_external_lb enable_scale_out tokens_only chat_template
    """.split()
)
"""Arguments of vLLM's HTTP server that have no meaning in the graph, or that a setting of ours replaces."""
COMMA_SEPARATED = frozenset({"device_ids"})
"""Lists that vLLM takes as one word."""


class Parser(FlexibleArgumentParser):  # type: ignore[misc]
    """vLLM's parser, except that a bad value raises instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise InvalidRequestError(f"engine_args: {message}")


def make_parser() -> argparse.ArgumentParser:
    return fill_parser(Parser(prog="vllm serve", add_help=False))


def fill_parser(parser: ParserT) -> ParserT:
    """Add the arguments of `vllm serve`, which takes the better part of a second."""
    make_arg_parser(parser)
    return parser


def to_namespace(engine_args: Mapping[str, Any]) -> argparse.Namespace:
    """Turn `engine_args` of the settings into the namespace that `vllm serve` would parse.

    Names with dashes or underscores. Raises InvalidRequestError naming an unknown argument (and the nearest known one),
    one that belongs to vLLM's HTTP server, or a value that vLLM's parser refuses.
    """
    parser = make_parser()
    namespace = parser.parse_args(to_argv(parser, engine_args))
    namespace.model = resolve_model(namespace.model)
    validate(namespace)
    return namespace


def to_argv(parser: argparse.ArgumentParser, engine_args: Mapping[str, Any]) -> list[str]:
    """Write `engine_args` as arguments of `vllm serve`; raises InvalidRequestError as `to_namespace` does."""
    actions = options_of(parser)
    named = underscored(engine_args)
    for name in named:
        check_name(name, actions)
    if not named.get("model"):
        raise InvalidRequestError("engine_args: `model` is required: a folder or a Hugging Face id")
    return [token for name, value in named.items() for token in to_tokens(actions[name], value)]


def options_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return what `--name` stands for, by name with underscores."""
    return {action.dest: action for action in parser._actions if action.option_strings}


def validate(namespace: argparse.Namespace) -> None:
    """Check what `vllm serve` does of arguments together; raises InvalidRequestError."""
    try:
        validate_parsed_serve_args(namespace)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"engine_args: {error}") from error


def check_name(name: str, actions: Mapping[str, argparse.Action]) -> None:
    """Raise InvalidRequestError when an argument does not exist, or is not for the graph."""
    if name in SERVER_ONLY:
        raise InvalidRequestError(f"engine_args: `{name}` belongs to vLLM's HTTP server; the graph has its own")
    if name not in actions:
        near = difflib.get_close_matches(name, actions, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise InvalidRequestError(f"engine_args: vLLM has no argument `{name}`{hint}")


def to_tokens(action: argparse.Action, value: Any) -> list[str]:
    """Write one argument as the command line has it; null means: not given."""
    if value is None:
        return []
    flag = max(action.option_strings, key=len)
    if flag.startswith("--no-"):
        flag = "--" + flag.removeprefix("--no-")
    if action.nargs == 0:
        if to_bool(action.dest, value):
            return [flag]
        is_pair = isinstance(action, argparse.BooleanOptionalAction)
        return ["--no-" + flag.removeprefix("--")] if is_pair else []
    if action.nargs == "?" and value is action.const:
        return [flag]
    if isinstance(value, list) and action.nargs in ("+", "*"):
        return [flag, *(_written(item) for item in value)]
    if action.dest in COMMA_SEPARATED and isinstance(value, list):
        return [f"{flag}={','.join(_written(item) for item in value)}"]
    return [f"{flag}={_written(value)}"]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def to_bool(name: str, value: Any) -> bool:
    """Read a switch; text is what `${VAR}` in a YAML gives. Anything unclear is refused, never taken for true."""
    text = str(value).lower()
    if text not in ("true", "false"):
        raise InvalidRequestError(f"engine_args: `{name}` must be true or false")
    return text == "true"


def resolve_model(model: str) -> str:
    """Return the absolute folder of a model that lies in this project, any other path or model id unchanged."""
    inside = PROJECT_ROOT / model
    return str(inside) if not Path(model).exists() and inside.is_dir() else model
