"""The console script `vllm-graph`."""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from config.models import PROJECT_ROOT
from deployments import console_serve, console_status
from deployments.console_serve import KEYS_VARIABLE
from deployments.launch import LaunchError, LocalCluster, deploy, wait_until_ready
from deployments.preflight import prepare_gateway

DEFAULT_CONFIG = PROJECT_ROOT / "serve_config.yaml"
START_TIMEOUT_S = 1800.0
DEFAULT_URL = "http://127.0.0.1:8000"


def main() -> None:
    options, words = parse_arguments(sys.argv[1:])
    try:
        if options.command == "serve":
            run_serve(words)
        elif options.command == "config":
            print_config(words)
        elif options.command == "status":
            console_status.print_status(options.url, options.key)
        else:
            run_up(options.config, options.timeout)
    except LaunchError as error:
        sys.exit(f"vllm-graph: {error}")


def parse_arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return what to do, and for `serve` and `config` the words that vLLM's parser is to read."""
    parser = argparse.ArgumentParser(prog="vllm-graph", description="Serve language models with vLLM on Ray Serve.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start Ray on this machine, deploy a config, serve until Ctrl-C")
    up.add_argument(
        "config", nargs="?", type=Path, default=DEFAULT_CONFIG, help="default: the project's serve_config.yaml"
    )
    up.add_argument("--timeout", type=float, default=START_TIMEOUT_S, help="seconds to wait for every model")
    commands.add_parser("serve", help="like `up`, with one model: `serve MODEL` and any flag of `vllm serve`")
    status = commands.add_parser("status", help="print the models of a running server and their load")
    status.add_argument("--url", default=DEFAULT_URL, help=f"default: {DEFAULT_URL}")
    status.add_argument("--key", help="a management key; default: VLLM_GRAPH_MANAGEMENT_KEYS of the environment")
    commands.add_parser("config", help="print what a `vllm serve` command is in serve_config.yaml")
    # argparse itself would look for its own options among vLLM's.
    if argv[:1] in (["serve"], ["config"]):
        return argparse.Namespace(command=argv[0]), list(argv[1:])
    return parser.parse_args(argv), []


def run_serve(words: Sequence[str]) -> None:
    """Serve the model of a `vllm serve` command in the foreground, as `run_up` does a config."""
    if console_serve.wants_help(words):
        console_serve.print_help(words)
        return
    command = console_serve.read_command(["vllm", "serve", *words])
    config = console_serve.to_config(command, _shipped(), Path.cwd())
    for remark in console_serve.remarks(command):
        print(f"[vllm-graph] {remark}", file=sys.stderr, flush=True)
    if keys := console_serve.keys_of(command, os.environ):
        # Not in the file: serve_config.yaml reads them from the environment of whoever starts Ray.
        os.environ[KEYS_VARIABLE] = ",".join([*filter(None, [os.environ.get(KEYS_VARIABLE)]), *keys])
    with private_file(config) as path:
        run_up(path, START_TIMEOUT_S)


def print_config(words: Sequence[str]) -> None:
    """Print the application of a command's model; the command as one word, or as several."""
    if not words or console_serve.wants_help(words):
        sys.exit("usage: vllm-graph config 'vllm serve MODEL ...'")
    command = console_serve.read_command(words)
    print(console_serve.to_yaml(command, _shipped(), Path.cwd()), end="")


@contextlib.contextmanager
def private_file(config: Any) -> Iterator[Path]:
    """Write a config where only this user reads it, and remove it at the end."""
    descriptor, name = tempfile.mkstemp(prefix="vllm-graph-", suffix=".yaml")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            yaml.safe_dump(config, file, sort_keys=False, allow_unicode=True)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _shipped() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(DEFAULT_CONFIG.read_text(encoding="utf-8"))
    return config


def run_up(config: Path, timeout_s: float) -> None:
    """Serve `config` in the foreground; everything started is stopped at the end, however it comes."""
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, _interrupt)
    prepare_gateway(config)
    try:
        with LocalCluster(config) as cluster:
            cluster.say_access()
            deploy(cluster, config)
            wait_until_ready(cluster, config, timeout_s)
            cluster.wait()
    except KeyboardInterrupt:
        print("stopped", flush=True)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
