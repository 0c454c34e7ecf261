"""Start the server of a config, put a short load on it, and report: what `make loadtest` does.

python -m loadtests.short [options of locust]
"""

import subprocess
import sys
import time
from pathlib import Path

from config.models import PROJECT_ROOT
from deployments.launch import LaunchError, LocalCluster, deploy, http_address, wait_until_ready
from deployments.preflight import prepare_gateway

CONFIG = PROJECT_ROOT / "serve_config.yaml"
LOCUST_PYTHON = PROJECT_ROOT / ".venv.loadtest" / "bin" / "python"
RESULTS = PROJECT_ROOT / "loadtests" / "results"
DEFAULTS = (
    "--headless --users 16 --run-time 60s --mix chat:6,plain-chat:2,completions:2,conversation:2,highlights:1".split()
)
START_TIMEOUT_S = 600


def main() -> None:
    try:
        prepare_gateway(CONFIG)
        with LocalCluster(CONFIG) as cluster:
            deploy(cluster, CONFIG)
            wait_until_ready(cluster, CONFIG, START_TIMEOUT_S)
            sys.exit(run("http://{}:{}".format(*http_address(CONFIG)), sys.argv[1:]))
    except LaunchError as error:
        sys.exit(f"loadtest: {error}")


def run(url: str, options: list[str]) -> int:
    """Run locust, and return its exit status; reports go to `loadtests/results/`."""
    RESULTS.mkdir(exist_ok=True)
    name = RESULTS / time.strftime("%Y%m%d-%H%M%S")
    command = [str(LOCUST_PYTHON), "-m", "locust", "-f", str(Path(__file__).with_name("locustfile.py")), "--host", url]
    command += [*DEFAULTS, "--html", f"{name}.html", "--summary", f"{name}.json", *options]
    status = subprocess.run(command, cwd=PROJECT_ROOT).returncode
    print(f"reports: {name}.html, {name}.json")
    return status


if __name__ == "__main__":
    main()
