"""Compare this project with a bare vLLM server and ray.serve.llm on this machine: what `make compare` does.

    python -m loadtests.compare [--only NAME ...] [--repetitions 5] [--short] [--out DIR]

In each repetition every contender is started, warmed up, put under every load and ended, one after the other; who
begins changes from one to the next. So nobody is measured beside somebody else's idle processes (with Ray they use a
tenth of a core and more), everybody's start is measured as often as everything else, and a machine that becomes slower
makes all of them slower. A repetition of all five takes about eight minutes on two cores. Ratios are to the bare
server of the same repetition; the tables show their median, lowest and highest. Nothing else should run meanwhile:
memory that is shared with somebody else's server is counted by half.

CPU time is of all processes of a server, from /proc, between two readings around each load. The client is a process of
its own (loadtests.burst), and its CPU time is reported, too: it shares the machine.
"""

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from config.models import PROJECT_ROOT
from deployments.launch import LaunchError
from loadtests.comparison.figures import Burst
from loadtests.comparison.plots import plots
from loadtests.comparison.report import to_markdown
from loadtests.comparison.runs import Load, Measured, Run, front_door, joined, rotated, to_run
from loadtests.comparison.targets import EIGHT, LONG, MANY, ONE, PLAIN
from loadtests.output import RESULTS
from loadtests.servers import machine
from loadtests.servers.contenders import CONTENDERS, Running
from loadtests.servers.processes import cpu_s_by_role, memory_bytes_by_role, snapshot, used_between, used_while_waiting
from loadtests.short import LOCUST_PYTHON

LOADS = (
    Load(ONE, 1, is_plain=False, seconds=6),
    Load(EIGHT, 8, is_plain=False, seconds=6),
    Load(MANY, 32, is_plain=False, seconds=10),
    Load(LONG, 32, is_plain=False, seconds=1, tokens=512),  # one answer each: more would end at different times
    Load(PLAIN, 32, is_plain=True, seconds=6),
)
"""Long enough for hundreds of requests, or a clock tick (10 ms) would be seen in the CPU time of a token."""
WARM_UP = (Load("warm-up", 32, is_plain=False, seconds=4), Load("warm-up, not streamed", 32, is_plain=True, seconds=1))
IDLE_S, QUIET, MAX_IDLE_READINGS = 3.0, 0.25, 8
"""What has been started goes on importing for a while: loads begin when a server that nobody asks uses less than a
quarter of a core for three seconds, or after eight times as long."""
NUM_PROCESSES = 12
"""As many of a server's processes are saved by themselves."""
SHORT_SHARE = 0.3


def main() -> None:
    options = parse_arguments()
    if options.saved:
        saved = [json.loads(path.read_text()) for path in options.saved]
        print(to_markdown(saved[0]["machine"], joined([[to_run(run) for run in each["runs"]] for each in saved])))
        return
    folder = options.out or RESULTS / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    facts = machine.facts()
    runs: list[Run] = []
    for repetition in range(options.repetitions):
        for name in rotated(options.only, repetition):
            say(f"repetition {repetition + 1} of {options.repetitions}: {name}")
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for the tables
                runs.append(run_of(name, repetition, SHORT_SHARE if options.short else 1.0))
            save(folder, facts, runs)
    print(to_markdown(facts, runs))
    say(f"saved: {folder}")
    if any(run.error for run in runs):
        sys.exit("compare: not everything could be measured; see the tables")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(CONTENDERS)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {names}")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="loads of a few seconds, to see that it works")
    parser.add_argument("--out", type=Path, help="folder for the results; default: loadtests/results/TIME")
    parser.add_argument(
        "--from",
        dest="saved",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="measure nothing: print the tables of these compare.json",
    )
    return parser.parse_args()


def run_of(name: str, repetition: int, share: float) -> Run:
    """Start a contender, measure it under every load and end it. A failure is part of the run; raises nothing else."""
    run = Run(name, repetition)
    try:
        with tempfile.TemporaryDirectory(prefix="compare-") as folder, CONTENDERS[name](Path(folder)) as server:
            say(f"  first token after {server.start_s:.1f} s")
            run = dataclasses.replace(run, start_s=server.start_s, deploy_s=server.deploy_s)
            for load in WARM_UP:
                burst(server.url, load, share)
            idle = settle(server)
            run = dataclasses.replace(run, idle_cpu=sum(idle.values()), idle_front_door=front_door(idle))
            for load in LOADS:
                run.loads[load.name] = measure(server, load, share)
                say(f"  {load.name}: {summary(run.loads[load.name])}")
            run = dataclasses.replace(run, memory_bytes=memory_bytes_by_role(server.pids()))
    except (LaunchError, RuntimeError, OSError, ValueError) as error:
        say(f"  failed: {error}")
        run = dataclasses.replace(run, error=f"failed: {str(error).splitlines()[0] if str(error) else repr(error)}")
    return run


def settle(server: Running) -> dict[str, float]:
    """Wait until a server is quiet, and return the CPU seconds per second that its processes use even so, by role."""
    for _ in range(MAX_IDLE_READINGS):
        used, elapsed_s = used_while_waiting(server.pids, IDLE_S)
        idle = {role: used_s / elapsed_s for role, used_s in cpu_s_by_role(used).items()}
        if sum(idle.values()) < QUIET:
            break
    return idle


def measure(server: Running, load: Load, share: float) -> Measured:
    """Put one load on a server and read what its processes have used meanwhile."""
    with client(server.url, load, share) as process:
        before, begin_s = snapshot(server.pids()), time.perf_counter()
        found = finish(process)
        used, window_s = used_between(before, snapshot(server.pids())), time.perf_counter() - begin_s
    return Measured(found, cpu_s_by_role(used), used[:NUM_PROCESSES], window_s)


def burst(url: str, load: Load, share: float) -> Burst:
    with client(url, load, share) as process:
        return finish(process)


def client(url: str, load: Load, share: float) -> subprocess.Popen[str]:
    """Start a client that has everything loaded and waits to begin. Raises RuntimeError when it does not."""
    command = [str(LOCUST_PYTHON), "-m", "loadtests.burst", url, "--wait", "--streams", str(load.streams)]
    command += [
        "--seconds",
        str(load.seconds * share),
        "--tokens",
        str(load.tokens),
        *(["--plain"] if load.is_plain else []),
    ]
    process = subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if not process.stdout.readline():
        raise RuntimeError(f"the client did not start: {process.communicate()[1][-500:]}")
    return process


def finish(process: subprocess.Popen[str]) -> Burst:
    """Have a client begin, and wait for its figures."""
    output, errors = process.communicate("\n")
    if process.returncode:
        raise RuntimeError(f"the client failed: {errors[-500:]}")
    return Burst(**json.loads(output))


def summary(measured: Measured) -> str:
    found = measured.burst
    text = f"{found.tokens / found.elapsed_s:.0f} tokens/s, {found.requests / found.elapsed_s:.1f} requests/s"
    if found.tokens:
        text += f", front door {measured.front_door_s / found.tokens * 1e6:.0f} us/token"
    return text + (f", errors: {found.errors}" if found.errors else "")


def save(folder: Path, facts: dict[str, str], runs: list[Run]) -> None:
    """Write everything anew, so that what has been measured is there when a later run is broken off."""
    saved: dict[str, Any] = {"machine": facts, "loads": [dataclasses.asdict(load) for load in LOADS]}
    saved["runs"] = [dataclasses.asdict(run) for run in runs]
    (folder / "compare.json").write_text(json.dumps(saved, indent=1) + "\n")
    (folder / "compare.md").write_text(to_markdown(facts, runs) + "\n")
    for name, svg in plots(runs).items():
        (folder / name).write_text(svg)


def say(text: str) -> None:
    print(f"[compare] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
