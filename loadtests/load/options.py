"""The options that locust does not have."""

import json
import os
import time
from typing import Any

from loadtests.load.client import Client
from loadtests.load.scenarios import INSTANCES, NAMES, parse_mix
from loadtests.load.shapes import share_at
from loadtests.load.summary import Limits
from loadtests.load.workload import Settings

NUM_STRETCHES = 120
"""Of a run, in its plots; none is shorter than a second."""
ENDLESS_STRETCH_S = 10.0
MODELS_TIMEOUT_S = 30.0
DRAIN_S = 30.0
"""How long answers may take once the load is over, before they count as unfinished."""


def add_options(parser: Any) -> None:
    asked = parser.add_argument_group("what is asked")
    asked.add_argument("--model", default="", help="default: the first one that the server lists")
    asked.add_argument("--key", default=os.environ.get("VLLM_GRAPH_KEY", ""), help="API key [VLLM_GRAPH_KEY]")
    asked.add_argument("--mix", default="chat", help=f"such as chat:8,highlights:1; of {', '.join(NAMES)}")
    asked.add_argument("--max-tokens", type=int, default=64, help="of each answer that is text")
    asked.add_argument(
        "--may-end-early", action="store_true", help="without vLLM's `ignore_eos`, which other servers may refuse"
    )
    asked.add_argument("--instances", default="", help="for `instances`: the models' names, with commas between them")
    asked.add_argument("--switch-every", type=float, default=10.0, help="seconds until the next instance is asked")
    add_arrival_options(parser.add_argument_group("when"))
    add_limit_options(parser.add_argument_group("what must come out, and where it goes"))
    parser.set_defaults(stop_timeout=DRAIN_S)


def add_arrival_options(group: Any) -> None:
    group.add_argument(
        "--arrival",
        choices=("closed", "constant", "poisson"),
        default="closed",
        help="closed: a user waits for each answer; the others: --rate, whatever the answers do",
    )
    group.add_argument("--rate", type=float, default=10.0, help="requests per second of an open arrival")
    group.add_argument("--shape", choices=("constant", "ramp", "step", "spike", "soak"), default="constant")
    group.add_argument("--request-timeout", type=float, default=300.0, help="seconds for a whole request")
    group.add_argument(
        "--max-under-way", type=int, default=800, help="requests of an open arrival in one process; more are not sent"
    )


def add_limit_options(group: Any) -> None:
    group.add_argument("--ttft-limit", type=float, default=10.0, help="seconds to the first text of a good request")
    group.add_argument("--min-goodput", type=float, default=0.95, help="share of good ones among those due")
    group.add_argument("--max-error-rate", type=float, default=0.01, help="share of failed ones among those answered")
    group.add_argument("--max-ttft-p95", type=float, help="seconds")
    group.add_argument("--max-itl-p99", type=float, help="seconds between two chunks with text")
    group.add_argument("--summary", default="", help="JSON file for the figures")
    group.add_argument("--report", default="", help="HTML file with plots")


def problem_of(environment: Any) -> str:
    """Say why a run with these options cannot work; "": it can. Takes the server's first model when none is named."""
    options = environment.parsed_options
    try:
        mix = parse_mix(options.mix)
    except ValueError as error:
        return str(error)
    if (INSTANCES in mix) != bool(options.instances):
        return "--instances a,b,c and `instances` in --mix belong together"
    if not environment.host:
        return "say where the server is: --host http://127.0.0.1:8000"
    if options.rate <= 0:
        return "--rate must be above 0"
    if options.shape not in ("constant", "soak") and not options.run_time:
        return f"--shape {options.shape} needs --run-time"
    if set(mix) != {INSTANCES}:
        try:
            options.model = options.model or first_model(environment.host, options.key)
        except ValueError as error:
            return str(error)
    return ""


def first_model(base_url: str, key: str) -> str:
    """Return the first model that a server lists; raises ValueError saying why there is none."""
    client = Client(base_url, key, MODELS_TIMEOUT_S)
    outcome = client.send("GET", "/v1/models")
    client.close()
    if outcome.error:
        raise ValueError(f"{base_url} does not list its models: {outcome.error}; is it up, and --key right?")
    try:
        return str(json.loads(outcome.body)["data"][0]["id"])
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{base_url} lists no model; name one: --model") from None


def derive(options: Any, num_processes: int) -> None:
    """Add what workers need to know and locust does not tell them: it sends all options that are not its own."""
    options.began = time.strftime("%Y-%m-%d %H:%M:%S %z")
    options.run_s = float(options.run_time or "inf")
    options.stretch_s = max(1.0, options.run_s / NUM_STRETCHES) if options.run_time else ENDLESS_STRETCH_S
    options.process_rate = options.rate / num_processes


def rate_at(options: Any, now_s: float) -> float:
    """Return how many requests per second are due in each process, so long after the beginning."""
    return float(options.process_rate) * share_at(options.shape, now_s, options.run_s)


def described(options: Any, host: str, processes: int, is_saturated: bool) -> dict[str, Any]:
    """Return what was run: enough to run it again."""
    names = ("model", "mix", "max_tokens", "instances", "arrival", "shape", "request_timeout", "max_under_way")
    run = {name: getattr(options, name) for name in names}
    is_open = options.arrival != "closed"
    return {
        "host": host,
        "began": options.began,
        **run,
        "rate": options.rate if is_open else None,
        "users": None if is_open else options.num_users or 1,
        "processes": processes,
        "load_generator_was_busy": is_saturated,
    }


def limits_of(options: Any) -> Limits:
    return Limits(
        options.ttft_limit, options.min_goodput, options.max_error_rate, options.max_ttft_p95, options.max_itl_p99
    )


def settings_of(environment: Any) -> Settings:
    options = environment.parsed_options
    return Settings(
        base_url=environment.host,
        key=options.key,
        model=options.model,
        mix=parse_mix(options.mix),
        max_tokens=options.max_tokens,
        request_timeout_s=options.request_timeout,
        ttft_limit_s=options.ttft_limit,
        instances=tuple(filter(None, options.instances.split(","))),
        switch_every_s=options.switch_every,
        is_endless=not options.may_end_early,
        max_under_way=options.max_under_way,
    )
