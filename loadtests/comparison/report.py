"""The tables of a comparison, as Markdown."""

from collections.abc import Sequence

from loadtests.comparison.runs import (
    BARE,
    Figure,
    Measured,
    Run,
    Spread,
    busy_us_per_token,
    cpu_us_per_token,
    in_burst,
    memory_gb,
    paired,
    problems,
    requests_per_s,
    spread_of,
    tokens_per_s,
    values,
)
from loadtests.comparison.targets import MANY, PLAIN, Target, targets, ttft_p50_s
from loadtests.output import table
from loadtests.servers.processes import ROLES, name_of

NONE = "-"
READING = (
    "The front door is every process of a server but the engine core and its workers. An update is what a reader of a "
    "stream sees change: chunks with text that come within a millisecond of each other are one. Beyond idle: without "
    "what the same processes use when nobody asks."
)


def to_markdown(facts: dict[str, str], runs: Sequence[Run]) -> str:
    """Return the whole report: the machine, the targets, ratios to the bare server, figures, CPU time, memory."""
    loads = list(dict.fromkeys(name for run in runs for name in run.loads))
    parts = ["# Comparison", "\n".join(f"- {name}: {value}" for name, value in facts.items())]
    parts += [f"Medians over {repetitions(runs)} repetitions; in brackets the lowest and the highest. {READING}"]
    parts += ["## Targets", target_table(targets(runs))]
    for load in loads:
        parts += [f"## {load}", load_table(runs, load), "As a ratio to `bare` in the same repetition:"]
        parts += [ratio_table(runs, load)]
    if MANY in loads:
        parts += [f"## CPU microseconds per token, {MANY}", role_table(runs, MANY), process_table(runs, MANY)]
    parts += ["## Start, idle and memory", start_table(runs)]
    return "\n\n".join(parts)


def repetitions(runs: Sequence[Run]) -> int:
    return len({run.repetition for run in runs})


def contenders(runs: Sequence[Run]) -> list[str]:
    """Return the names in the order in which the first repetition had them."""
    return list(dict.fromkeys(run.contender for run in runs))


def number(value: float) -> str:
    """Write three significant digits, and large numbers whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def median_only(spread: Spread | None) -> str:
    return NONE if spread is None else number(spread.median)


def with_spread(spread: Spread | None, unit: str = "") -> str:
    if spread is None:
        return NONE
    if spread.count == 1:
        return f"{number(spread.median)}{unit}"
    return f"{number(spread.median)}{unit} ({number(spread.lowest)} to {number(spread.highest)})"


def target_table(rows: Sequence[Target]) -> str:
    head = ["contender", "what", "target", "measured", "repetitions", "verdict"]
    cells = [
        [
            row.contender,
            row.what,
            f"{'<=' if row.is_ceiling else '>='} {row.limit:g}{row.unit}",
            with_spread(row.measured, row.unit),
            str(row.measured.count if row.measured else 0),
            f"{row.verdict}: {row.problems}" if row.measured and row.problems else row.verdict,
        ]
        for row in rows
    ]
    return table(head, cells)


def columns(load: str) -> dict[str, Figure]:
    """Return a load's figures by their heading; of one that is not streamed there are fewer."""

    def ms(name: str) -> Figure:
        return in_burst(load, lambda burst: None if (value := getattr(burst, name)) is None else value * 1e3)

    found = {"tokens/s": tokens_per_s(load), "requests/s": requests_per_s(load)}
    if load == PLAIN:
        found["e2e p50 ms"] = ms("e2e_p50_s")
    else:
        found |= {"TTFT p50 ms": ms("ttft_p50_s"), "TTFT p95 ms": ms("ttft_p95_s")}
        found |= {"between updates p50 ms": ms("itl_p50_s"), "between updates p99 ms": ms("itl_p99_s")}
        found["chunks per token"] = in_burst(load, lambda burst: burst.chunks / burst.tokens if burst.tokens else None)
        found["updates/s per stream"] = in_burst(load, lambda burst: burst.updates_per_s)
    client = in_burst(load, lambda burst: burst.client_cpu_s / burst.tokens * 1e6 if burst.tokens else None)
    found |= {"front door us/token": cpu_us_per_token(load), "beyond idle": busy_us_per_token(load)}
    return {**found, "client us/token": client}


def load_table(runs: Sequence[Run], load: str) -> str:
    figures = columns(load)
    rows = [
        [
            name,
            *(median_only(values(runs, name, figure)) for figure in figures.values()),
            problems(runs, name, load) or "0",
        ]
        for name in contenders(runs)
    ]
    return table(["contender", *figures, "errors"], rows)


def ratio_columns(load: str) -> dict[str, Figure]:
    found = {"tokens/s": tokens_per_s(load), "front-door CPU per token": cpu_us_per_token(load)}
    found["beyond idle"] = busy_us_per_token(load)
    if load != PLAIN:
        found["TTFT p50"] = ttft_p50_s(load)
        found["between updates p99"] = in_burst(load, lambda burst: burst.itl_p99_s)
    return found


def ratio_table(runs: Sequence[Run], load: str) -> str:
    figures = ratio_columns(load)
    rows = [
        [name, *(with_spread(paired(runs, name, figure)) for figure in figures.values())]
        for name in contenders(runs)
        if name != BARE
    ]
    return table(["contender", *figures], rows)


def role_table(runs: Sequence[Run], load: str) -> str:
    client = columns(load)["client us/token"]
    rows = [
        [
            name,
            with_spread(values(runs, name, cpu_us_per_token(load))),
            *(median_only(values(runs, name, cpu_us_per_token(load, role))) for role in ROLES),
            median_only(values(runs, name, client)),
        ]
        for name in contenders(runs)
    ]
    return table(["contender", "front door", *ROLES, "client"], rows)


def process_table(runs: Sequence[Run], load: str) -> str:
    """Return each contender's processes with their medians, those of the same name added up."""
    rows = []
    for name in contenders(runs):
        measured = [run.loads[load] for run in runs if run.contender == name and load in run.loads]
        parts = {(used.role, name_of(used.command)) for each in measured for used in each.processes}
        spreads = {part: spread_of([us_per_token(each, *part) for each in measured]) for part in parts}
        known = {part: spread for part, spread in spreads.items() if spread is not None and spread.median > 0}
        for (role, process), spread in sorted(known.items(), key=lambda item: -item[1].median):
            rows.append([name, f"`{process}`", role, with_spread(spread)])
    return table(["contender", "process", "role", "us/token"], rows)


def us_per_token(measured: Measured, role: str, process: str) -> float | None:
    used = [each.cpu_s for each in measured.processes if each.role == role and name_of(each.command) == process]
    return sum(used) / measured.burst.tokens * 1e6 if measured.burst.tokens else None


def start_table(runs: Sequence[Run]) -> str:
    figures: dict[str, Figure] = {
        "start to first token, s": lambda run: run.start_s,
        "`serve deploy` to first token, s": lambda run: run.deploy_s,
        "CPU while idle, % of a core": lambda run: None if run.idle_cpu is None else run.idle_cpu * 100,
        "memory (PSS), GB": memory_gb,
    }
    rows = [
        [
            name,
            *(with_spread(values(runs, name, figure)) for figure in figures.values()),
            ", ".join(f"{role} {size}" for role, size in memory_by_role(runs, name).items()) or NONE,
            problems(runs, name) or "0",
        ]
        for name in contenders(runs)
    ]
    return table(["contender", *figures, "memory by role, GB", "errors"], rows)


def memory_by_role(runs: Sequence[Run], contender: str) -> dict[str, str]:
    """Return medians in GB; roles that no process has are left out."""
    found = {}
    for role in ROLES:
        spread = values(runs, contender, lambda run, role=role: run.memory_bytes.get(role, 0) / 1e9 or None)  # type: ignore[misc]
        if spread is not None:
            found[role] = number(spread.median)
    return found
