"""Every metric that an operator of this graph may want, as Prometheus sees it: ours, and those of what we run on."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deployments import telemetry

Source = Literal["this project", "vLLM", "Ray Serve", "Ray", "HAProxy"]
OTHERS = Path(__file__).with_name("others.csv")
PARTS = ("_bucket", "_sum", "_count")
"""What Prometheus has of a histogram."""


@dataclass(frozen=True, slots=True)
class Exported:
    """One metric; of a histogram the name without `_bucket`, `_sum` and `_count`."""

    name: str
    kind: telemetry.Kind
    source: Source
    meaning: str
    tags: tuple[str, ...] = ()
    unit: str = ""
    """Of its values, if it is no count."""

    @property
    def series(self) -> frozenset[str]:
        """The names that a query uses."""
        return frozenset(self.name + part for part in PARTS) if self.kind == "histogram" else frozenset({self.name})


def ours() -> tuple[Exported, ...]:
    return tuple(
        Exported(metric.exported_name, metric.kind, "this project", metric.meaning, metric.tags, metric.unit)
        for metric in telemetry.METRICS
    )


def others() -> tuple[Exported, ...]:
    """Return what matters of the metrics of others, as `others.csv` lists them."""
    with OTHERS.open(newline="", encoding="utf-8") as file:
        return tuple(to_exported(row) for row in csv.DictReader(file))


def to_exported(row: dict[str, Any]) -> Exported:
    return Exported(**{**row, "tags": tuple(row["tags"].split())})


def exported() -> tuple[Exported, ...]:
    """Return the whole list, in the order of the documentation."""
    return (*ours(), *others())
