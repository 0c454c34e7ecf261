"""Start the server of a config, put a short load on it, and report: what `make loadtest` does.

python -m loadtests.short [--config FILE] [options of locust]
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from config.models import PROJECT_ROOT
from deployments.launch import LaunchError, LocalCluster, deploy, http_address, wait_until_ready
from deployments.preflight import prepare_gateway
from loadtests.output import RESULTS

CONFIG = PROJECT_ROOT / "serve_config.yaml"
LOCUST_PYTHON = PROJECT_ROOT / ".venv.loadtest" / "bin" / "python"
DEFAULTS = (
    "--headless --only-summary --users 16 --run-time 60s "
    "--mix chat:6,plain-chat:2,completions:2,conversation:2,highlights:1"
).split()
START_TIMEOUT_S = 600
LEAVE_TIMEOUT_S = 10
"""How long locust may take to write its reports after Ctrl-C."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=CONFIG)
    options, locust_options = parser.parse_known_args()
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, interrupt)
    try:
        if not LOCUST_PYTHON.exists():
            raise LaunchError(f"{LOCUST_PYTHON.parent.parent} is missing; run: make setup-loadtest")
        prepare_gateway(options.config)
        with LocalCluster(options.config) as cluster:
            deploy(cluster, options.config)
            wait_until_ready(cluster, options.config, START_TIMEOUT_S)
            status = run("http://{}:{}".format(*http_address(options.config)), locust_options)
    except LaunchError as error:
        sys.exit(f"loadtest: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
    sys.exit(status)


def run(url: str, options: list[str]) -> int:
    """Run locust, and return its exit status; reports go to `loadtests/results/`."""
    name = RESULTS / time.strftime("%Y%m%d-%H%M%S")
    command = [str(LOCUST_PYTHON), "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")), "--host", url]
    command += [*DEFAULTS, "--report", f"{name}.html", "--summary", f"{name}.json", *options]
    keys = os.environ.get("VLLM_GRAPH_INFERENCE_KEYS", "").split(",")
    environment = {**os.environ, "VLLM_GRAPH_KEY": os.environ.get("VLLM_GRAPH_KEY") or keys[0]}
    process = subprocess.Popen(command, cwd=PROJECT_ROOT, env=environment)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        end(process)
        raise
    finally:
        reports = [f"{name}{suffix}" for suffix in (".html", ".json") if Path(f"{name}{suffix}").exists()]
        print("reports:", ", ".join(reports) or "none", flush=True)
    return status


def end(locust: "subprocess.Popen[bytes]") -> None:
    """Let locust, which has got the terminal's Ctrl-C as well, write its reports; end it if it does not."""
    for harder in (locust.terminate, locust.kill):
        try:
            locust.wait(LEAVE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            harder()
    locust.wait()


def interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
