"""What puts the loads of `loadtests.ways` on a Source from a process of its own: loads in, timings out, JSON lines."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from config.models import PROJECT_ROOT
from loadtests.layers.streams import Load, Source, Timings, measure

PREFIX = "ANSWER "
READY = "ready"


async def answer_loads(sources: Mapping[str, Source], questions: TextIO = sys.stdin) -> None:
    """Read [way, streams, requests, tokens] and write the Timings, until the input ends.

    Blocks the event loop while it waits for a question: between loads nothing else is to run.
    """
    print(PREFIX + json.dumps(READY), flush=True)
    for line in questions:
        way, *load = json.loads(line)
        timings = await measure(sources[way], Load(*load))
        print(PREFIX + timings.to_json(), flush=True)


class Worker:
    """A process that answers loads: a module with `answer_loads`, run with Python."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=PROJECT_ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def measure(self, way: str, load: Load) -> Timings:
        """Put a load on one of its ways; raises RuntimeError when the process has ended."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([way, *load]) + "\n")
        self.process.stdin.flush()
        return Timings(**self._read())

    def _read(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(PREFIX):
                return json.loads(line.removeprefix(PREFIX))
        raise RuntimeError(f"{self.process.args!r} ended; its last words are above")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
