"""Guided decoding against a bare vLLM server: first tokens, hostile constraints, memory.

    python -m loadtests.guided GRAPH_URL MODEL_FOLDER [ROUNDS]

GRAPH_URL is this project's server; the bare one (`python -m vllm.entrypoints.openai.api_server`) is started here with
the same model, and again whenever a constraint has ended it. Both serve the model as `demo` and do nothing else
meanwhile. Cold figures are of constraints that nobody has sent before; each is the median over ROUNDS rounds in which
the servers take turns.
"""

import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil

from loadtests.load.constraints import CONSTRAINTS, formats, fresh
from loadtests.servers.bare import HANG_S, BareServer, ask, body_of, ttft
from tests.hostile_constraints import CONSTRAINTS as HOSTILE
from tests.hostile_constraints import as_request_fields

CORPUS_HANG_S = 10
NUM_SCHEMAS = 1000


def first_token(http: httpx.Client, fields: dict[str, Any]) -> float | str:
    try:
        return ttft(http, fields)
    except (RuntimeError, httpx.HTTPError) as error:
        return type(error).__name__ if isinstance(error, httpx.HTTPError) else str(error)[:160]


def summary(values: list[float | str]) -> str:
    times = [value for value in values if isinstance(value, float)]
    failures = Counter(value for value in values if isinstance(value, str))
    text = f"{statistics.median(times) * 1000:8.1f} ms" if times else ""
    return text + "".join(f"  {count} x {failure}" for failure, count in failures.items())


def first_tokens(graph: httpx.Client, bare: BareServer, rounds: int) -> None:
    print("time to the first token, plain / cold / warm")
    for name, server in (("graph", graph), ("bare", bare.http)):
        print(f"  {'no constraint':34} {name:6} {summary([first_token(server, {}) for _ in range(rounds)])}")
    for label, make in CONSTRAINTS.items():
        figures: dict[str, list[float | str]] = {
            f"{who} {when}": [] for who in ("graph", "bare") for when in ("cold", "warm")
        }
        for _ in range(rounds):
            for who in ("graph", "bare"):
                fields = make(fresh())
                http = graph if who == "graph" else bare.http
                for when in ("cold", "warm"):
                    figures[f"{who} {when}"].append(first_token(http, fields))
            if not bare.is_well():
                bare.close()
                bare.start()
                break  # more of it would tell the same
        for what, values in figures.items():
            print(f"  {label:34} {what:10} {summary(values)}", flush=True)


def corpus(graph: httpx.Client, bare: BareServer) -> None:
    """Send each hostile constraint to both, and see what it does to a plain request after it."""
    print(f"{len(HOSTILE)} hostile constraints: what they are answered, refusals left out")
    for who in ("graph", "bare"):
        found: Counter[str] = Counter()
        for row in HOSTILE:
            http = graph if who == "graph" else bare.http
            answer = answer_to(http, as_request_fields(row))
            if who == "bare" and not bare.is_well():
                answer += ", then dead or hanging"
                bare.close()
                bare.start()
            found[answer] += 1
            if answer != "4xx":
                print(f"  {who:6} {row.id:30} {answer}", flush=True)
        print(f"  {who:6} " + ", ".join(f"{answer}: {count}" for answer, count in sorted(found.items())), flush=True)


def answer_to(http: httpx.Client, fields: dict[str, Any]) -> str:
    body = body_of(fields) | {"max_tokens": 8}
    try:
        status = http.post("/v1/chat/completions", json=body, timeout=CORPUS_HANG_S).status_code
    except httpx.TimeoutException:
        return f"none within {CORPUS_HANG_S} s"
    except httpx.HTTPError:
        return "connection lost"
    return "200" if status == 200 else f"{status // 100}xx"


def pss_mib(pids: list[int]) -> float:
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 2**20


def graph_pids() -> list[int]:
    """Return the processes of Serve replicas and what they started."""
    found = psutil.process_iter(["cmdline"])
    replicas = [p for p in found if any(name in str(p.info["cmdline"]) for name in ("ServeReplica", "CompileActor"))]
    return sorted({p.pid for replica in replicas for p in [replica, *replica.children(recursive=True)]})


def memory(graph: httpx.Client, bare: BareServer) -> None:
    print(f"memory (PSS) before and after {NUM_SCHEMAS} different schemas")
    for who in ("graph", "bare"):
        http, pids = (graph, graph_pids) if who == "graph" else (bare.http, bare.pids)
        before = pss_mib(pids())
        refused = 0
        for _ in range(NUM_SCHEMAS):
            refused += ask(http, {"structured_outputs": {"json": formats(fresh())}, "max_tokens": 1}).status_code != 200
        print(f"  {who:6} {before:7.0f} -> {pss_mib(pids()):7.0f} MiB, {refused} refused", flush=True)


def main() -> None:
    url, folder = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 9
    bare = BareServer(str(Path(folder).resolve()))
    graph = httpx.Client(base_url=url, timeout=HANG_S)
    try:
        first_tokens(graph, bare, rounds)
        memory(graph, bare)
        corpus(graph, bare)
    finally:
        bare.close()


if __name__ == "__main__":
    main()
