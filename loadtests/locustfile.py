"""Load on any OpenAI-compatible server; `make loadtest` runs a short one against a server that it starts.

locust -f loadtests/locustfile.py --headless -H http://127.0.0.1:8000 -u 32 -t 60s --mix chat:8,highlights:1
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gevent
import psutil
from locust import LoadTestShape, User, events, log, task
from locust.runners import MasterRunner, WorkerRunner

from loadtests.load.events import Outcome
from loadtests.load.metrics import E2E, ITL, TTFT, Tallies
from loadtests.load.options import add_options, derive, described, limits_of, problem_of, rate_at, settings_of
from loadtests.load.page import page
from loadtests.load.shapes import users_at
from loadtests.load.summary import MS, Figures, lines_of, missed, summary
from loadtests.load.workload import Workload, pause_s

IDLE_S = 0.1
"""How often a user who has nothing to do looks around."""
MARGIN_S = 1.0
"""Users leave so long after the load's end: each process ends it by its own clock, and may have begun later."""


class Run:
    """What this process knows of the run under way; of the master, what all of them know."""

    def __init__(self, run_s: float, stretch_s: float) -> None:
        self.tallies = Tallies(time.perf_counter(), run_s, stretch_s)
        self.workload: Workload | None = None
        self.users: dict[int, int] = {}
        """By stretch of the run."""
        self.idle_workers: set[str] = set()
        """Whose last report said that they have no user and no request left."""
        self.elapsed_s: float | None = None
        self.is_cut = True

    def end(self) -> None:
        """Take the time when the load ended, the first time that it is said."""
        if self.elapsed_s is None:
            self.elapsed_s = max(min(time.perf_counter() - self.tallies.begin_s, self.tallies.run_s), IDLE_S)


RUN = Run(float("inf"), 1.0)
events.init_command_line_parser.add_listener(add_options)


class Shape(LoadTestShape):
    """As many users as --users and --shape say, for --run-time; then none, until all answers are there."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        options = self.runner.environment.parsed_options
        full, run_s, now_s = options.num_users or 1, options.run_time or float("inf"), self.get_run_time()
        if now_s < run_s + MARGIN_S:
            users = users_at(options.shape, now_s, run_s, full)
            RUN.users[int(now_s / RUN.tallies.stretch_s)] = users
            return users, float(full)
        RUN.end()
        if self._is_idle() or now_s > run_s + MARGIN_S + options.stop_timeout:
            RUN.is_cut = False
            return None
        return 0, float(full)

    def _is_idle(self) -> bool:
        if isinstance(self.runner, MasterRunner):
            return set(self.runner.clients) <= RUN.idle_workers
        return self.runner.user_count == 0 and RUN.workload is not None and RUN.workload.under_way == 0


class Asking(User):
    """One user: asks, waits for the answer, asks again. Open arrivals need none: requests come when they are due."""

    @task
    def ask(self) -> None:
        assert RUN.workload is not None
        if self.environment.parsed_options.arrival != "closed" or RUN.tallies.is_over(time.perf_counter()):
            gevent.sleep(IDLE_S)
        else:
            gevent.sleep(pause_s(RUN.workload.ask()))


@events.init.add_listener
def prepare(environment: Any, **_: Any) -> None:
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        return
    problem = problem_of(environment)
    if problem:
        # Of --processes. Locust would leave them: they look for their master for minutes, and hold its output open.
        for worker in psutil.Process().children():
            worker.terminate()
        sys.exit(f"loadtest: {problem}")


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    global RUN  # locust's listeners are functions of this module, and a run of its page follows another
    options, runner = environment.parsed_options, environment.runner
    if not isinstance(runner, WorkerRunner):
        derive(options, len(runner.clients) if isinstance(runner, MasterRunner) else 1)
    RUN = Run(options.run_s, options.stretch_s)
    environment.stop_timeout = float(options.stop_timeout)  # `stop` has set it to 0 if there was a run before
    if isinstance(runner, MasterRunner):
        return
    RUN.workload = Workload(settings_of(environment), RUN.tallies, lambda *answer: show(environment, *answer))
    if options.arrival != "closed":
        gevent.spawn(RUN.workload.arrive, options.arrival == "poisson", lambda now_s: rate_at(options, now_s))


def show(environment: Any, name: str, outcome: Outcome) -> None:
    """Put an answer into locust's own tables: rows e2e, ttft and itl of its scenario, or one of its kind of error."""
    error = RuntimeError(outcome.error) if outcome.error else None
    environment.events.request.fire(
        request_type=E2E,
        name=name,
        response_time=None if error else outcome.e2e_s * MS,
        response_length=outcome.num_tokens,
        exception=error,
        context={},
    )
    stats = environment.stats  # what is put into a row itself is not in the row of all requests
    if error:
        stats.get(f"{name}: {outcome.error}", "error").log(outcome.e2e_s * MS, 0)
        return
    if outcome.ttft_s is not None:
        stats.get(name, TTFT).log(outcome.ttft_s * MS, 0)
    for gap_s in outcome.gaps_s:
        stats.get(name, ITL).log(gap_s * MS, 0)


@events.report_to_master.add_listener
def report(client_id: str, data: dict[str, Any]) -> None:
    data["tallies"] = RUN.tallies.take()
    data["under_way"] = RUN.workload.under_way if RUN.workload else 0


@events.worker_report.add_listener
def add_up(client_id: str, data: dict[str, Any]) -> None:
    RUN.tallies.put(data["tallies"])
    if RUN.elapsed_s is not None and data["user_count"] + data["under_way"] == 0:
        RUN.idle_workers.add(client_id)


@events.test_stopping.add_listener
def stop(environment: Any, **_: Any) -> None:
    """End what is under way: its time is over, or somebody wants to leave."""
    RUN.end()
    environment.stop_timeout = 0.0
    if RUN.workload is not None:
        RUN.workload.close()


def figures_of(environment: Any) -> Figures:
    """Return the summary, with what was run and how many users there were."""
    options, runner = environment.parsed_options, environment.runner
    found = summary(RUN.tallies, RUN.elapsed_s or IDLE_S, RUN.is_cut)
    users = next(iter(RUN.users.values()), 0)
    for number, moment in enumerate(found["over_time"]):
        moment["users"] = users = RUN.users.get(number, users)
    workers = runner.worker_index_max if isinstance(runner, MasterRunner) else 1
    is_saturated = runner.cpu_warning_emitted or runner.worker_cpu_warning_emitted
    return {"run": described(options, environment.host, workers, is_saturated), **found}


@events.quitting.add_listener
def end(environment: Any, **_: Any) -> None:
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        return
    RUN.end()
    found = figures_of(environment)
    print("\n".join(lines_of(found)))
    options = environment.parsed_options
    limits = limits_of(options)
    if options.summary:
        write(Path(options.summary), json.dumps(found | {"limits": asdict(limits)}, indent=2) + "\n")
    if options.report:
        write(Path(options.report), page(found, RUN.tallies, limits))
    lines = missed(found, limits)
    for line in lines:
        print(f"FAILED: {line}", file=sys.stderr)
    if lines:
        environment.process_exit_code = 1
    elif not runner.exceptions and not log.unhandled_greenlet_exception:
        environment.process_exit_code = 0  # else locust's own: a single failed request would fail the run


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
