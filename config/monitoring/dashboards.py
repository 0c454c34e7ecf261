"""The dashboards, and Grafana's JSON of them."""

from typing import Any

from config.monitoring.panels import Dashboard, Panel, Row
from config.monitoring.parts import GUIDED, INSTANCES, LOOPS, PROCESSES, REPLICAS, WRITING
from config.monitoring.traffic import BUDGET, ENGINES, LATENCY, REQUESTS, SUCCESS

DASHBOARDS = (
    Dashboard("vllm-graph-requests", "vllm-graph: requests and engines", (REQUESTS, LATENCY, ENGINES, BUDGET)),
    Dashboard(
        "vllm-graph-parts",
        "vllm-graph: parts and processes",
        (GUIDED, WRITING, INSTANCES, REPLICAS, LOOPS, PROCESSES),
    ),
)

SCHEMA_VERSION = 39
"""Of Grafana's classic model, that of Grafana 11; later ones read it, too."""
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS, PANELS_PER_ROW, PANEL_HEIGHT = 24, 3, 8


def to_grafana(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as it is imported: the datasource and the models are chosen above it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["vllm-graph"],
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "schemaVersion": SCHEMA_VERSION,
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [datasource_variable(), model_variable()]},
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "tags": ["vllm-graph"], "title": "vllm-graph", "asDropdown": True}],
        "panels": [panel for row in laid_out(dashboard.rows) for panel in row],
    }


def datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "refresh": 1}


def model_variable() -> dict[str, Any]:
    query = f"label_values({SUCCESS}, model_name)"
    return {
        "name": "model",
        "label": "Model",
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "models"},
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def laid_out(rows: tuple[Row, ...]) -> list[list[dict[str, Any]]]:
    """Place rows of panels below each other."""
    placed, number, top = [], 1, 0
    width = COLUMNS // PANELS_PER_ROW
    for row in rows:
        place = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        header = {"type": "row", "id": number, "title": row.title, "collapsed": False, "panels": [], "gridPos": place}
        panels = [header]
        for index, panel in enumerate(row.panels):
            line, column = divmod(index, PANELS_PER_ROW)
            place = {"x": column * width, "y": top + 1 + line * PANEL_HEIGHT, "w": width, "h": PANEL_HEIGHT}
            panels.append(to_panel(panel, number + 1 + index, place))
        placed.append(panels)
        number += len(panels)
        top += 1 + -(-len(row.panels) // PANELS_PER_ROW) * PANEL_HEIGHT
    return placed


def to_panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 30 if panel.is_stacked else 0,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
    }
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.meaning,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
                "range": True,
            }
            for index, query in enumerate(panel.queries)
        ],
    }
