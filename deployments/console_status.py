"""`vllm-graph status`: the models of a running server as a table."""

import json
import os
import urllib.error
import urllib.request
from typing import Any

from deployments.launch import LaunchError

COLUMNS = ("MODEL", "STATUS", "REPLICAS", "RUNNING", "WAITING", "KV CACHE", "MESSAGE")
TIMEOUT_S = 15
KEY_VARIABLE = "VLLM_GRAPH_MANAGEMENT_KEYS"
MAX_MESSAGE_CHARS = 60


def print_status(url: str, key: str | None) -> None:
    """Ask the server at a URL, print its models; raises LaunchError saying what is in the way."""
    key = key or os.environ.get(KEY_VARIABLE, "").split(",")[0].strip()
    if not key:
        raise LaunchError(f"this needs a management key: --key, or {KEY_VARIABLE} in the environment")
    print(table([COLUMNS, *(row(model) for model in fetch(url, key)["models"])]))


def fetch(url: str, key: str) -> Any:
    request = urllib.request.Request(f"{url.rstrip('/')}/api/v1/status", headers={"authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise LaunchError(f"{url} answers {error.code}: {error.read(500).decode(errors='replace')}") from error
    except (OSError, ValueError) as error:
        raise LaunchError(f"{url} does not answer: {error}. Is the server running?") from error


def row(model: dict[str, Any]) -> tuple[str, ...]:
    replicas = model["replicas"]
    usage = max((replica["kv_cache_usage"] for replica in replicas), default=None)
    return (
        model["name"],
        model["status"],
        str(len(replicas)),
        str(sum(replica["num_running"] for replica in replicas)),
        str(sum(replica["num_waiting"] for replica in replicas)),
        "-" if usage is None else f"{usage:.0%}",
        " ".join(model["message"].split())[:MAX_MESSAGE_CHARS],
    )


def table(rows: list[tuple[str, ...]]) -> str:
    """Write rows with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
