"""The report of a run: one HTML file with figures and plots, to look at and to pass on."""

import html
from typing import Any

from loadtests.load.charts import Chart, Point, Series, draw
from loadtests.load.histogram import cumulative
from loadtests.load.metrics import ITL, TTFT, Tallies
from loadtests.load.summary import MS, PERCENTILES, Figures, Limits, missed

STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #667085; --paper: #f6f7f9; --card: #fff; --edge: #e3e6eb;
  --good: #1a7f4b; --bad: #c0362c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaf0; --soft: #9aa4b5; --paper: #14171c; --card: #1d2128;
  --edge: #313742; --good: #4cc38a; --bad: #ff8379; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 17px; margin: 32px 0 10px; }
.soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
.verdict { font-weight: 600; margin: 8px 0 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 20px; }
.card, figure, .table { background: var(--card); border: 1px solid var(--edge); border-radius: 10px;
  padding: 14px 16px; }
.card b { display: block; font-size: 25px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); gap: 14px; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: 4px; }
svg { display: block; width: 100%; height: auto; } svg text { font-size: 11.5px; fill: var(--soft); }
svg .grid { stroke: var(--edge); } svg circle { opacity: 0; } svg circle:hover { opacity: 1; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 5px 10px; text-align: right; white-space: nowrap; } th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; } tbody tr { border-top: 1px solid var(--edge); }
"""
LABELS = {"ttft_ms": "first text (TTFT)", "itl_ms": "inter-token", "tpot_ms": "per token", "e2e_ms": "whole answer"}


def page(found: Figures, tallies: Tallies, limits: Limits) -> str:
    """Return the report as an HTML document that needs no other file."""
    run = {name: value for name, value in found["run"].items() if value not in (None, "")}
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Load test of {escape(run['host'])}</title><style>{STYLE}</style><main>",
        heading(found, missed(found, limits)),
        cards(found),
        "<h2>Over time</h2>",
        plots(charts_over_time(found)),
        "<h2>Distributions</h2>",
        plots(distributions(tallies)),
        "<h2>Scenarios, in milliseconds</h2>",
        scenario_table(found),
        error_table(found),
        "<h2>The run</h2>",
        table(["option", "value"], [[name, value] for name, value in run.items()]),
        "</main></html>",
    ]
    return "".join(parts)


def escape(value: Any) -> str:
    return html.escape(str(value))


def heading(found: Figures, missed_lines: list[str]) -> str:
    run = found["run"]
    lines = [f"<p class='verdict bad'>Failed: {escape(line)}</p>" for line in missed_lines]
    lines = lines or ["<p class='verdict good'>Passed: every threshold was kept.</p>"]
    if run["load_generator_was_busy"]:
        lines.append("<p class='bad'>The load generator used a whole core: some of these times are its own.</p>")
    when = f"{escape(run['began'])}, {found['elapsed_s']:.0f} s, {escape(run['mix'])}"
    return f"<h1>Load test of {escape(run['host'])}</h1><div class=soft>{when}</div>{''.join(lines)}"


def cards(found: Figures) -> str:
    shown = [
        ("tokens/s", f"{found['tokens_per_s']:,.0f}", ""),
        ("requests/s", f"{found['achieved_per_s']:.2f}", f"of {found['offered_per_s']:.2f} offered"),
        ("goodput", f"{found['goodput']:.1%}", f"of {found['due']:,} due"),
        ("errors", f"{found['error_rate']:.2%}", f"{found['failed']:,} failed"),
        ("first text, p50", milliseconds(found["ttft_ms"]["p50"]), f"p95 {milliseconds(found['ttft_ms']['p95'])}"),
        ("inter-token, p50", milliseconds(found["itl_ms"]["p50"]), f"p99 {milliseconds(found['itl_ms']['p99'])}"),
    ]
    return f"<div class=cards>{''.join(card(*one) for one in shown)}</div>"


def card(name: str, value: str, note: str) -> str:
    return f"<div class=card><span class=soft>{name}</span><b>{value}</b><span class=soft>{note}</span></div>"


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def plots(charts: list[Chart]) -> str:
    drawn = [(chart, draw(chart)) for chart in charts]
    figures = [f"<figure><figcaption>{escape(chart.title)}</figcaption>{svg}</figure>" for chart, svg in drawn if svg]
    return f"<div class=plots>{''.join(figures)}</div>"


def charts_over_time(found: Figures) -> list[Chart]:
    moments, label = found["over_time"], "seconds"
    rates = [("offered", "offered_per_s"), ("answered", "achieved_per_s"), ("failed", "failed_per_s")]
    requests = [Series(name, at_each(moments, key), is_dashed=name == "offered") for name, key in rates]
    charts = [
        Chart("Requests per second", label, requests),
        Chart("Tokens per second", label, [Series("tokens/s", at_each(moments, "tokens_per_s"))]),
        Chart("Time to first text, ms", label, of_percentiles(moments, "ttft_ms", (50, 95, 99)), unit=" ms"),
        Chart("Inter-token time, ms", label, of_percentiles(moments, "itl_ms", (50, 95, 99)), unit=" ms"),
        Chart("Whole answers, ms", label, of_percentiles(moments, "e2e_ms", (50, 95, 99)), unit=" ms"),
    ]
    if found["run"]["users"] is not None:
        charts.append(Chart("Users", label, [Series("users", at_each(moments, "users"))]))
    return charts


def at_each(moments: list[Figures], key: str) -> list[Point | None]:
    return [(moment["at_s"], moment[key]) for moment in moments]


def of_percentiles(moments: list[Figures], key: str, percentiles: tuple[int, ...]) -> list[Series]:
    return [
        Series(f"p{share}", [None if (y := m[key][f"p{share}"]) is None else (m["at_s"], y) for m in moments])
        for share in percentiles
    ]


def distributions(tallies: Tallies) -> list[Chart]:
    """Make a chart of each kind of time: which share of a scenario's lie within how many milliseconds."""
    charts = []
    for kind, title in ((TTFT, "Time to first text"), (ITL, "Inter-token time")):
        series = [
            Series(name, [(time_s * MS, share * 100) for time_s, share in cumulative(whole.times[kind])])
            for name, (whole, _) in tallies.of_scenarios().items()
            if whole.times[kind]
        ]
        charts.append(Chart(f"{title}: % of all within", "milliseconds", series, has_log_x=True, y_max=100, unit=" %"))
    return charts


def table(head: list[str], rows: list[list[Any]]) -> str:
    titles = "".join(f"<th>{escape(name)}" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(value)}" for value in row) for row in rows)
    return f"<div class=table><table><thead><tr>{titles}<tbody>{lines}</table></div>"


def scenario_table(found: Figures) -> str:
    rows = []
    for name, one in [*found["scenarios"].items(), *([("all", found)] if len(found["scenarios"]) > 1 else [])]:
        for key, label in LABELS.items():
            if one[key]["p50"] is not None:
                counts = [one["answered"], one["failed"], f"{one['goodput']:.1%}"]
                times = [milliseconds(one[key][f"p{share}"]).removesuffix(" ms") for share in PERCENTILES]
                rows.append([name, *counts, label, *times])
    head = ["scenario", "answered", "failed", "goodput", "time", *(f"p{share}" for share in PERCENTILES)]
    return table(head, rows)


def error_table(found: Figures) -> str:
    rows = [[name, kind, count] for name, one in found["scenarios"].items() for kind, count in one["errors"].items()]
    rows += [
        [name, label, one[key]]
        for name, one in found["scenarios"].items()
        for key, label in (("not_sent", "not sent: too many under way"), ("unfinished", "unfinished at the end"))
        if one[key]
    ]
    return "<h2>Errors</h2>" + table(["scenario", "kind", "requests"], rows) if rows else ""
