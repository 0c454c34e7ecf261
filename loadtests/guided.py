"""Guided decoding against a bare vLLM server: first tokens, hostile constraints, memory.

    python -m loadtests.guided GRAPH_URL MODEL_FOLDER [ROUNDS]

GRAPH_URL is this project's server; the bare one (`python -m vllm.entrypoints.openai.api_server`) is started here with
the same model, and again whenever a constraint has ended it. Both serve the model as `demo` and do nothing else
meanwhile. Cold figures are of constraints that nobody has sent before; each is the median over ROUNDS rounds in which
the servers take turns.
"""

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil

from deployments.launch import free_port
from tests.hostile_constraints import CONSTRAINTS as HOSTILE
from tests.hostile_constraints import as_request_fields

MODEL = "demo"
ENGINE_ARGS = "--max-model-len 4096 --max-num-seqs 64 --kv-cache-memory-bytes 134217728 --block-size 32".split()
NUM_STREAMS, STREAM_TOKENS = 8, 400
HANG_S = 30
CORPUS_HANG_S = 10
NUM_SCHEMAS = 1000
NUMBERS = itertools.count(int(time.time() * 1000))
"""For names that nobody has sent before."""

Body = dict[str, Any]


class BareServer:
    """vLLM's own server, started again when it has died or hangs."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.start()

    def start(self) -> None:
        port = free_port()
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", self._folder]
        command += ["--served-model-name", MODEL, *ENGINE_ARGS, "--port", str(port)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_USE_AOT_COMPILE": "0"}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HANG_S)
        while not self.is_well():
            time.sleep(0.5)

    def is_well(self) -> bool:
        """Say whether it answers a plain request."""
        try:
            return ask(self.http, {"max_tokens": 1}).status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        self.http.close()
        parent = psutil.Process(self.process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            process.kill()
        self.process.wait()

    def pids(self) -> list[int]:
        return [self.process.pid, *(p.pid for p in psutil.Process(self.process.pid).children(recursive=True))]


def body_of(fields: Body) -> Body:
    return {"model": MODEL, "messages": [{"role": "user", "content": "Give me some data."}]} | fields


def ask(http: httpx.Client, fields: Body) -> httpx.Response:
    return http.post("/v1/chat/completions", json=body_of(fields))


def ttft(http: httpx.Client, fields: Body) -> float:
    """Return the seconds to the first token, or raise what went wrong."""
    start = time.perf_counter()
    body = body_of(fields) | {"stream": True, "max_tokens": 4, "temperature": 0}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        for line in response.iter_lines():
            if response.status_code != 200 or '"error"' in line:
                raise RuntimeError(f"{response.status_code} {line[:200]}")
            if line.startswith("data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                return time.perf_counter() - start
    raise RuntimeError("no token")


def two_properties(name: str) -> Body:
    return {
        "type": "object",
        "properties": {name: {"type": "string"}, "n": {"type": "integer"}},
        "required": [name, "n"],
    }


def formats(name: str) -> Body:
    properties = {
        name: {"type": "string", "format": "uuid"},
        "email": {"type": "string", "format": "email"},
        "title": {"type": "string", "maxLength": 60},
        "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        "state": {"enum": ["open", "closed", "waiting", "lost"]},
    }
    return {"type": "object", "properties": properties, "required": sorted(properties), "additionalProperties": False}


def nested(name: str, depth: int = 4, width: int = 5) -> Body:
    """Make objects within objects: 5 + 25 + 125 + 625 of them, 781 with the root."""
    leaf: Body = {"type": "object", "properties": {name: {"type": "integer"}}, "required": [name]}
    for _ in range(depth):
        fields = {f"{name[-3:]}_{number}": leaf for number in range(width)}
        leaf = {"type": "object", "properties": fields, "required": sorted(fields)}
    return leaf


def optional(name: str) -> Body:
    return {"type": "object", "properties": {f"{name}_{number}": {"type": "integer"} for number in range(3000)}}


CONSTRAINTS: dict[str, Callable[[str], Body]] = {
    "2 properties": lambda name: {"structured_outputs": {"json": two_properties(name)}},
    "formats, lengths, pattern, enum": lambda name: {"structured_outputs": {"json": formats(name)}},
    "nested, 781 objects": lambda name: {"structured_outputs": {"json": nested(name)}},
    "3,000 optional properties": lambda name: {"structured_outputs": {"json": optional(name)}},
    "(.{0,1000}){0,1000}": lambda name: {"structured_outputs": {"regex": f"({name[-4:]}.{{0,1000}}){{0,1000}}"}},
}


def fresh() -> str:
    return f"p{next(NUMBERS)}"


def first_token(http: httpx.Client, fields: Body) -> float | str:
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


@contextmanager
def beside(base_url: str, make: Callable[[], Body] | None) -> Iterator[None]:
    """Send one request after the other while the block runs."""
    stop = threading.Event()

    def run() -> None:
        with httpx.Client(base_url=base_url, timeout=HANG_S) as http:
            while make is not None and not stop.is_set():
                with contextlib.suppress(httpx.HTTPError):
                    ask(http, make())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(HANG_S)


def gaps(base_url: str) -> list[float]:
    """Return the times between two chunks of plain streams, in seconds."""
    found: list[float] = []

    def stream() -> None:
        times = []
        body = body_of({"stream": True, "max_tokens": STREAM_TOKENS, "ignore_eos": True})
        with httpx.stream("POST", f"{base_url}/v1/chat/completions", json=body, timeout=120) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    times.append(time.perf_counter())
        found.extend(b - a for a, b in pairwise(times))

    threads = [threading.Thread(target=stream) for _ in range(NUM_STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1000 if values else float("nan")


def many_properties() -> Body:
    names = [fresh() for _ in range(300)]
    return {"type": "object", "properties": {name: {"type": "integer"} for name in names}}


def streams_beside_others(graph: httpx.Client, bare: BareServer, rounds: int) -> None:
    """Measure what those who send no constraint notice of those who send slow ones, which a bare server survives."""
    print(f"time between chunks of {NUM_STREAMS} plain streams, p50 / p99, medians of {rounds} rounds")
    others: dict[str, Callable[[], Body] | None] = {
        "alone": None,
        "beside nested schemas": lambda: {"structured_outputs": {"json": nested(fresh())}, "max_tokens": 1},
        "beside 300 optional properties": lambda: {"structured_outputs": {"json": many_properties()}, "max_tokens": 1},
        "beside slow regexes": lambda: {
            "structured_outputs": {"regex": f"({fresh()}.{{0,300}}){{0,300}}"},
            "max_tokens": 1,
        },
    }
    for label, make in others.items():
        figures: dict[str, list[list[float]]] = {"graph": [], "bare": []}
        for _ in range(rounds):
            for who, http in (("graph", graph), ("bare", bare.http)):
                url = str(http.base_url).rstrip("/")
                with beside(url, make):
                    figures[who].append(gaps(url))
        for who, found in figures.items():
            p50, p99 = (statistics.median(percentile(one, share) for one in found) for share in (0.5, 0.99))
            print(f"  {label:34} {who:6} {p50:6.1f} / {p99:6.1f} ms", flush=True)


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


def answer_to(http: httpx.Client, fields: Body) -> str:
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
        streams_beside_others(graph, bare, max(3, rounds // 2))
        corpus(graph, bare)
    finally:
        bare.close()


if __name__ == "__main__":
    main()
