"""The console script `vllm-graph`."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from config.models import PROJECT_ROOT
from deployments.launch import LaunchError, LocalCluster, deploy, wait_until_ready
from deployments.preflight import prepare_gateway

DEFAULT_CONFIG = PROJECT_ROOT / "serve_config.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(prog="vllm-graph", description="Serve language models with vLLM on Ray Serve.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start Ray on this machine, deploy a config, serve until Ctrl-C")
    up.add_argument(
        "config", nargs="?", type=Path, default=DEFAULT_CONFIG, help="default: the project's serve_config.yaml"
    )
    up.add_argument("--timeout", type=float, default=1800.0, help="seconds to wait for every model (default 1800)")
    options = parser.parse_args()
    try:
        run_up(options.config, options.timeout)
    except LaunchError as error:
        sys.exit(f"vllm-graph: {error}")


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
