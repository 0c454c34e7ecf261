"""The list of metrics, and what is generated from it."""

import itertools
import json
import re
from typing import Any, get_args

import pytest
import yaml

from config.models import PROJECT_ROOT
from config.monitoring.dashboards import COLUMNS, DASHBOARDS, to_grafana
from config.monitoring.exported import Exported, Source, exported
from config.monitoring.generate import FOLDER, files
from config.monitoring.queries import METRICS, series_in, value
from deployments import telemetry

QUERIES = [
    (panel.title, query.expression)
    for board in DASHBOARDS
    for row in board.rows
    for panel in row.panels
    for query in panel.queries
]
PANELS = [panel for board in DASHBOARDS for panel in to_grafana(board)["panels"]]


@pytest.mark.parametrize("name", files())
def test_generated_files_are_up_to_date(name: str) -> None:
    written = (PROJECT_ROOT / name).read_text(encoding="utf-8")
    assert written == files()[name], "run: python -m config.monitoring.generate"


def test_no_other_dashboard_lies_there() -> None:
    assert {f"{FOLDER}/{path.name}" for path in (PROJECT_ROOT / FOLDER).iterdir()} <= files().keys()


def test_each_metric_has_a_name_of_its_own() -> None:
    assert len(METRICS) == len(exported())
    assert len({metric.name for metric in telemetry.METRICS}) == len(telemetry.METRICS)


@pytest.mark.parametrize("metric", exported(), ids=lambda metric: metric.name)
def test_an_entry_of_the_list_is_complete(metric: Exported) -> None:
    assert metric.source in get_args(Source)
    assert metric.kind in get_args(telemetry.Kind)
    assert metric.name.startswith(("ray_", "haproxy_"))
    assert metric.kind != "counter" or metric.name.endswith("_total")
    assert metric.meaning.endswith(".")


@pytest.mark.parametrize("metric", telemetry.METRICS, ids=lambda metric: metric.name)
def test_names_follow_prometheus(metric: telemetry.Metric) -> None:
    assert re.fullmatch(r"vllm_graph_[a-z_]+[a-z]", metric.name)
    assert not metric.name.endswith("_total"), "Ray adds it"
    assert (metric.unit == "s") == metric.name.endswith("_seconds")
    assert metric.meaning.endswith(".")
    assert not {"application", "deployment", "replica"} & set(metric.tags), "Serve adds these"


def test_every_metric_of_ours_is_in_the_list() -> None:
    defined = {metric.name for metric in vars(telemetry).values() if isinstance(metric, telemetry.Metric)}
    assert defined == {metric.name for metric in telemetry.METRICS}


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_a_query_uses_only_what_is_in_the_list(title: str, expression: str) -> None:
    assert series_in(expression)
    assert series_in(expression) <= {name for metric in exported() for name in metric.series}


def test_every_metric_of_ours_is_on_a_dashboard() -> None:
    used = {name for _, expression in QUERIES for name in series_in(expression)}
    assert [metric.name for metric in exported() if metric.source == "this project" and not metric.series & used] == []


def test_panels_neither_overlap_nor_stick_out() -> None:
    for board in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in to_grafana(board)["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= COLUMNS
            cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not cells & taken
            taken |= cells
        numbers = [panel["id"] for panel in to_grafana(board)["panels"]]
        assert len(set(numbers)) == len(numbers)


def labels_kept(expression: str) -> set[str]:
    return {label.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(",")}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_legend_names_labels_that_its_query_keeps(panel: dict[str, Any]) -> None:
    for target in panel.get("targets", []):
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels_kept(target["expr"])


def test_a_name_that_is_not_in_the_list_cannot_be_used() -> None:
    with pytest.raises(KeyError):
        value("ray_vllm_graph_nothing", "model")


def test_names_are_found_in_a_query() -> None:
    query = 'sum by (le) (rate(ray_vllm_a_seconds_bucket{model=~"ray_x"}[1m])) / haproxy_b_total'
    assert series_in(query) == {"ray_vllm_a_seconds_bucket", "haproxy_b_total"}


def test_the_datasource_is_chosen_in_grafana() -> None:
    def datasources(node: Any) -> list[Any]:
        if isinstance(node, list):
            return [found for item in node for found in datasources(item)]
        if isinstance(node, dict):
            own = [node["datasource"]] if "datasource" in node else []
            return own + [found for item in node.values() for found in datasources(item)]
        return []

    for board in DASHBOARDS:
        found = datasources(json.loads(json.dumps(to_grafana(board))))
        assert found
        assert all(datasource == {"type": "prometheus", "uid": "${datasource}"} for datasource in found)


def test_prometheus_reads_the_file_that_ray_writes() -> None:
    config = yaml.safe_load((PROJECT_ROOT / "config/monitoring/prometheus.yml").read_text())
    (discovery,) = config["scrape_configs"][0]["file_sd_configs"]
    assert discovery["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]


def test_what_prometheus_drops_is_not_in_the_list() -> None:
    config = yaml.safe_load((PROJECT_ROOT / "config/monitoring/prometheus.yml").read_text())
    dropped, _ = config["scrape_configs"][0]["metric_relabel_configs"]
    assert [name for metric in exported() for name in metric.series if re.fullmatch(dropped["regex"], name)] == []


def test_buckets_of_a_time_grow_and_are_narrow() -> None:
    bounds = telemetry.SECONDS
    assert all(1 < later / earlier < 2.6 for earlier, later in itertools.pairwise(bounds))
