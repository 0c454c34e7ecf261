"""GuideLLM and our own client, in turns and under the same load on the same server: do they say the same?

    python -m loadtests.second_opinion [--streams 8] [--seconds 20] [--rounds 3] [--url http://127.0.0.1:8000]

Without --url the server of `serve_config.yaml` is started. Both clients need environments of their own:
`python3 requirements/prepare.py --loadtest` and `--guidellm`. Prints Markdown, and saves it in `loadtests/results/`.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.models import PROJECT_ROOT
from loadtests import output
from loadtests.short import LOCUST_PYTHON
from tests.harness import default_config, serving

GUIDELLM = PROJECT_ROOT / ".venv.guidellm" / "bin" / "guidellm"
MODEL, TOKENIZER = "demo", "config/demo_model"
TOKENS, PROMPT_TOKENS = 64, 16
"""Of an answer, and of a prompt without its template: as long as locust's chats."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one client has measured."""

    client: str
    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p95_ms: float
    tpot_p50_ms: float
    """Between tokens, the mean of each answer: GuideLLM knows single gaps of no answer, and calls this its ITL."""
    tpot_p99_ms: float


def locust_command(url: str, streams: int, seconds: int, summary: Path) -> list[str]:
    command = [
        str(LOCUST_PYTHON),
        "-m",
        "locust",
        "-f",
        "loadtests/locustfile.py",
        "--headless",
        "-H",
        url,
        "-u",
        str(streams),
    ]
    command += ["-t", f"{seconds}s", "--mix", "chat", "--max-tokens", str(TOKENS), "--summary", str(summary)]
    return [*command, "--only-summary"]


def guidellm_command(url: str, streams: int, seconds: int, report: Path) -> list[str]:
    command = [str(GUIDELLM), "run", "--disable-console", "--output", f"kind=json,path={report}"]
    command += ["--backend", f"kind=openai_http,target={url},model={MODEL},http2=false"]
    command += ["--tokenizer", f"kind=hf_auto,model={TOKENIZER}"]
    command += ["--data", f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={TOKENS}"]
    command += ["--profile", f"kind=concurrent,streams={streams}"]
    return [*command, "--constraint", f"kind=max_duration,seconds={seconds}"]


def read_locust(figures: dict[str, Any]) -> Opinion:
    ttft, tpot = figures["ttft_ms"], figures["tpot_ms"]
    return Opinion("locust", figures["tokens_per_s"], ttft["p50"], ttft["p95"], tpot["p50"], tpot["p99"])


def read_guidellm(report: dict[str, Any]) -> Opinion:
    metrics = report["benchmarks"][0]["metrics"]
    ttft, tpot = (metrics[name]["successful"] for name in ("time_to_first_token_ms", "inter_token_latency_ms"))
    rate = metrics["output_tokens_per_second"]["successful"]["mean"]
    percentiles = ttft["percentiles"]
    p50, p99 = (tpot["percentiles"][name] for name in ("p50", "p99"))
    return Opinion("GuideLLM", rate, percentiles["p50"], percentiles["p95"], p50, p99)


def ask(command: Sequence[str], result: Path) -> dict[str, Any]:
    """Run a client and return what it wrote; raises CalledProcessError."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(PROJECT_ROOT)}
    subprocess.run(command, cwd=PROJECT_ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    figures: dict[str, Any] = json.loads(result.read_text())
    return figures


def opinions(url: str, streams: int, seconds: int, rounds: int) -> list[Opinion]:
    """Have both clients measure in turns."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "figures.json"
        for _ in range(rounds):
            found.append(read_locust(ask(locust_command(url, streams, seconds, result), result)))
            found.append(read_guidellm(ask(guidellm_command(url, streams, seconds, result), result)))
    return found


def table(found: Sequence[Opinion]) -> str:
    """Return each client's medians as a Markdown table."""
    rows = []
    for client in dict.fromkeys(opinion.client for opinion in found):
        own = [opinion for opinion in found if opinion.client == client]
        rate, *times = (
            statistics.median(getattr(opinion, name) for opinion in own)
            for name in ("tokens_per_s", "ttft_p50_ms", "ttft_p95_ms", "tpot_p50_ms", "tpot_p99_ms")
        )
        first, later = (f"{a:.1f} / {b:.1f}" for a, b in (times[:2], times[2:]))
        rows.append([client, f"{rate:,.0f}", first, later])
    head = ["client", "tokens/s", "TTFT p50 / p95, ms", "between tokens, mean of an answer, p50 / p99, ms"]
    return output.table(head, rows) + "\n"


@contextlib.contextmanager
def server(url: str) -> Iterator[str]:
    """Yield the URL of a server: the given one, else one that runs until the block ends."""
    if url:
        yield url
        return
    with serving(default_config()) as started:
        yield started.base_url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="", help="of a server that runs; default: one is started")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=20, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with server(options.url) as url:
        found = opinions(url, options.streams, options.seconds, options.rounds)
        output.save("second_opinion", [dataclasses.asdict(opinion) for opinion in found], table(found))


if __name__ == "__main__":
    main()
