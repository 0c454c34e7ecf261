"""What an idle server uses: nothing but Ray Serve, and this project. A part of every token's cost at a low load.

    python -m loadtests.idle [SECONDS]

The first one is one application with an empty answer, behind HAProxy, with the flags of serve_config.yaml. Prints CPU
time by process, % of a core, for each.
"""

import contextlib
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from deployments.launch import LocalCluster, deploy, wait_until_ready
from loadtests.output import table
from loadtests.servers.bare import START_TIMEOUT_S
from loadtests.servers.contenders import environment_of, open_environment, shipped, write_config
from loadtests.servers.processes import ENGINE, name_of, used_while_waiting

SECONDS = 30.0
SETTLE_S = 20.0
"""What has just started goes on importing for a while."""
TOTAL = "all but the engine core"


def main(seconds: str = str(SECONDS)) -> None:
    empty = [{"name": "empty", "route_prefix": "/", "import_path": "loadtests.servers.empty:app"}]
    found = {
        "Ray Serve": idle(float(seconds), applications=empty),
        "this project": idle(float(seconds)),
    }
    names = sorted({name for used in found.values() for name in used}, key=lambda name: -found["this project"][name])
    rows = [
        [f"`{name}`" if name != TOTAL else name, *(f"{used[name]:.1f}" for used in found.values())] for name in names
    ]
    print(table(["% of a core", *found], rows))


def idle(seconds: float, **changes: Any) -> defaultdict[str, float]:
    """Start serve_config.yaml with changes, let it rest, and return what each kind of process uses, % of a core."""
    totals: defaultdict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory(prefix="idle-") as folder:
        path = write_config({**shipped(Path(folder)), **changes}, Path(folder))
        stdout_is_for_the_table = contextlib.redirect_stdout(sys.stderr)
        with stdout_is_for_the_table, environment_of(open_environment()), LocalCluster(path) as cluster:
            deploy(cluster, path)
            wait_until_ready(cluster, path, START_TIMEOUT_S)
            time.sleep(SETTLE_S)
            used, elapsed_s = used_while_waiting(lambda: [each.pid for each in cluster.processes()], seconds)
    for each in used:
        share = 100 * each.cpu_s / elapsed_s
        totals[name_of(each.command)] += share
        totals[TOTAL] += share if each.role != ENGINE else 0.0
    return totals


if __name__ == "__main__":
    main(*sys.argv[1:])
