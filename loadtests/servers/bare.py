"""A bare vLLM server beside which this project is measured, and plain requests to either."""

import json
import os
import subprocess
import sys
import time
from typing import Any

import httpx
import psutil

from deployments.ports import free_port

MODEL = "demo"
ENGINE_ARGS = "--max-model-len 4096 --max-num-seqs 64 --kv-cache-memory-bytes 134217728 --block-size 32".split()
HANG_S = 30
POLL_S = 0.5
START_TIMEOUT_S = 600
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    # vLLM 0.32 cannot load what it saves so on CPU, and compiles for 8 s at every start.
    "VLLM_USE_AOT_COMPILE": "0",
    # This project is a plugin of every vLLM in its environment; these names leave none.
    "VLLM_PLUGINS": "",
}
"""Of a vLLM that is not this project's."""

Body = dict[str, Any]


class BareServer:
    """vLLM's own server, started again when it has died or hangs."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.start()

    def start(self) -> None:
        """Start it and wait for its first token; raises RuntimeError when it ends instead, or takes too long."""
        port = free_port()
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", self._folder]
        command += ["--served-model-name", MODEL, *ENGINE_ARGS, "--port", str(port)]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HANG_S)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.is_well():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError(f"the bare server did not start: {' '.join(command)}")
            time.sleep(POLL_S)

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
