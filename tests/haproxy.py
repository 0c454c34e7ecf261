"""HAProxy for tests: the config that Serve would write, and the script that runs it."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig
from ray.serve.config import HTTPOptions

from config.models import PROJECT_ROOT

SCRIPT = [sys.executable, "-m", "deployments.haproxy"]
START_TIMEOUT_S = 20


def write_config(folder: Path, ports: Mapping[str, int], backends: dict[str, BackendConfig], **settings: Any) -> Path:
    """Write what Serve writes for these backends.

    ports: of `http`, `stats` and `metrics`. settings: more fields of HAProxyConfig.
    """
    config = HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=ports["http"]),
        stats_port=ports["stats"],
        metrics_port=ports["metrics"],
        socket_path=str(folder / "admin.sock"),
        server_state_base=str(folder),
        server_state_file=str(folder / "state"),
        http_health_check_path=None,
        **settings,
    )
    for backend in backends.values():
        backend.http_health_check_path = None
    path = folder / "haproxy.cfg"
    HAProxyApi(config, backends, str(path))._generate_config_file_internal()
    return path


@contextlib.contextmanager
def running(path: Path, port: int, **environment: str) -> Iterator[int]:
    """Run the script on a config as Serve does, until the block ends; gives its process's id once `port` is open."""
    command = [*SCRIPT, "-db", "-f", str(path), "-dR"]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, env={**os.environ, **environment}) as process:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not is_listening(port):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield process.pid
        process.terminate()


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
