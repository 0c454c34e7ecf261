"""What a dashboard is made of: rows of panels, each with its queries."""

from dataclasses import dataclass
from typing import Literal

from config.monitoring.queries import quantile

Unit = Literal["short", "reqps", "s", "ms", "percent", "percentunit", "bytes", "Bps", "ops"]
"""Grafana's units: `percent` goes to 100, `percentunit` to 1."""


@dataclass(frozen=True, slots=True)
class Query:
    expression: str
    legend: str
    """Grafana's template: `{{label}}`."""


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    meaning: str
    unit: Unit
    queries: tuple[Query, ...]
    is_stacked: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    uid: str
    title: str
    rows: tuple[Row, ...]


def quantiles(name: str, by: str = "", where: str = "") -> tuple[Query, ...]:
    suffix = f" {{{{{by}}}}}" if by else ""
    return tuple(Query(quantile(name, at, by, where), f"p{at * 100:g}{suffix}") for at in (0.5, 0.95, 0.99))
