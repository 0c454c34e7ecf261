"""What plain streams notice of others' slow constraints, here and on a bare vLLM server.

    python -m loadtests.guided_beside GRAPH_URL MODEL_FOLDER [ROUNDS]

Prints the time between two chunks of 8 plain streams, alone and while constraints that nobody has sent before come one
after the other. The servers take turns, and so do the loads; ratios are within a round, to the streams alone. One load
is a loop in a process with the lowest priority there is: what this machine cannot keep apart.
"""

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import aiohttp

from loadtests.load.constraints import SLOW, Body
from loadtests.servers.bare import HANG_S, BareServer, body_of

NUM_STREAMS, STREAM_TOKENS = 8, 1500
NUM_BODIES = 2000
COUNTING = "an idle-priority loop"
CHAT = "/v1/chat/completions"


async def stream(session: aiohttp.ClientSession) -> list[float]:
    """Return the times between the chunks of one plain stream, in seconds."""
    times = []
    body = body_of({"stream": True, "max_tokens": STREAM_TOKENS, "ignore_eos": True})
    async with session.post(CHAT, json=body) as response:
        async for line in response.content:
            if line.startswith(b"data: {"):
                times.append(time.perf_counter())
    return [after - before for before, after in pairwise(times)]


async def send(session: aiohttp.ClientSession, bodies: list[bytes]) -> None:
    """Send one after the other until cancelled."""
    for body in bodies:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with session.post(CHAT, data=body, headers={"content-type": "application/json"}) as response:
                await response.read()


async def gaps(base_url: str, make: Callable[[], Body] | None) -> list[float]:
    """Return the times between chunks of all streams, while the constraints of `make` are sent."""
    # Written before the clock runs: the client is one thread.
    bodies = [json.dumps(body_of(make() | {"max_tokens": 1})).encode() for _ in range(NUM_BODIES)] if make else []
    timeout = aiohttp.ClientTimeout(total=HANG_S)
    async with (
        aiohttp.ClientSession(base_url) as session,
        aiohttp.ClientSession(base_url, timeout=timeout) as other,
    ):
        sending = asyncio.create_task(send(other, bodies))
        found = await asyncio.gather(*(stream(session) for _ in range(NUM_STREAMS)))
        sending.cancel()
        await asyncio.wait({sending})
    return [gap for one in found for gap in one]


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """Keep one processor busy, as long as nobody else wants it."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
        yield
    finally:
        process.kill()
        process.wait()


def percentile_ms(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1000


def main() -> None:
    url, folder = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    bare = BareServer(str(Path(folder).resolve()))
    loads: dict[str, Callable[[], Body] | None] = {"alone": None, COUNTING: None, **SLOW}
    figures: dict[tuple[str, str], list[tuple[float, float]]] = {}
    try:
        for _ in range(rounds):
            for load, make in loads.items():
                for who, base_url in (("graph", url), ("bare", str(bare.http.base_url))):
                    with counting() if load == COUNTING else contextlib.nullcontext():
                        found = asyncio.run(gaps(base_url.rstrip("/"), make))
                    figures.setdefault((load, who), []).append((percentile_ms(found, 0.5), percentile_ms(found, 0.99)))
    finally:
        bare.close()
    print(f"time between chunks of {NUM_STREAMS} plain streams, p50 / p99 in ms, medians of {rounds} rounds")
    for (load, who), pairs in figures.items():
        p50, p99 = (statistics.median(column) for column in zip(*pairs, strict=True))
        alone = figures["alone", who]
        ratio = statistics.median(pair[1] / other[1] for pair, other in zip(pairs, alone, strict=True))
        print(f"  {load:26} {who:6} {p50:6.1f} / {p99:6.1f}   p99 / alone {ratio:5.2f}", flush=True)


if __name__ == "__main__":
    main()
