"""A process that asks engines for their load: stats_probe.py RAY_ADDRESS; application names in, JSON lines out.

A process of its own, because what Serve keeps in a driver's process does not survive a change of clusters.
"""

import dataclasses
import json
import sys

import ray
from ray import serve

PREFIX = "STATS "


def main() -> None:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="error", namespace="serve")
    for line in sys.stdin:
        stats = serve.get_deployment_handle("Engine", line.strip()).stats.remote().result(timeout_s=30)
        print(PREFIX + json.dumps(dataclasses.asdict(stats)), flush=True)


if __name__ == "__main__":
    main()
