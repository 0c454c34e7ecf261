"""Write what is made from the list of metrics: the dashboards and the table of the documentation.

python -m config.monitoring.generate
"""

import json
from pathlib import Path

from config.monitoring.dashboards import DASHBOARDS, to_grafana
from config.monitoring.exported import Exported, Source, exported

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = "config/monitoring/grafana/dashboards"
TABLE = "docs/metrics.md"

HEAD = """# Metrics

Made by `python -m config.monitoring.generate`; [operations](operations.md#monitoring) says how to have Prometheus
collect them and Grafana show them.

A histogram NAME is in Prometheus as `NAME_bucket` (by `le`), `NAME_sum` and `NAME_count`. Every metric of this project
also has the tags `application`, `deployment` and `replica`, those of vLLM `engine` and `ReplicaId`, and all that come
through Ray `WorkerId`, `NodeAddress` or `ip`, and `SessionName`.
"""
HEADER = ("| name | type | unit | tags | meaning |", "|---|---|---|---|---|")
WORDS: dict[Source, tuple[str, str]] = {
    "this project": ("Ours", "The list is `deployments/telemetry.py`."),
    "vLLM": (
        "vLLM",
        "What matters most; vLLM has some more. Whoever asked is counted: the API, the writing tools, probes. There "
        "from an engine's first request on; gauges only while an engine works, for Ray drops what is not set for 10 s.",
    ),
    "Ray Serve": ("Ray Serve", "What matters most of them."),
    "Ray": ("Ray", "Machines and processes."),
    "HAProxy": ("HAProxy", "From its own port, 9101 unless `RAY_SERVE_HAPROXY_METRICS_PORT` says otherwise."),
}


def files() -> dict[str, str]:
    """Return every generated file, by its path from the root."""
    texts = {f"{FOLDER}/{board.uid}.json": json.dumps(to_grafana(board), indent=1) + "\n" for board in DASHBOARDS}
    return texts | {TABLE: table()}


def table() -> str:
    parts = [HEAD]
    for source, (title, text) in WORDS.items():
        rows = [to_row(metric) for metric in exported() if metric.source == source]
        parts += [
            f"## {title}",
            text,
            "\n".join([*HEADER, *rows]),
        ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def to_row(metric: Exported) -> str:
    tags = ", ".join(f"`{tag}`" for tag in metric.tags)
    return f"| `{metric.name}` | {metric.kind} | {metric.unit} | {tags} | {metric.meaning} |"


def main() -> None:
    for name, text in files().items():
        (ROOT / name).write_text(text, encoding="utf-8")
        print(f"wrote {name}")


if __name__ == "__main__":
    main()
