"""A real Prometheus: the one on PATH, else Debian's package, unpacked into a cache folder. Nothing is installed."""

import math
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import yaml

from config.models import PROJECT_ROOT
from deployments.ports import free_port
from tests.harness import Config, Server, eventually

PACKAGE = "prometheus"
BINARY = Path("usr/bin/prometheus")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vllm-graph" / PACKAGE
CONFIG = PROJECT_ROOT / "config/monitoring/prometheus.yml"
SCRAPE_S = 2
STOP_TIMEOUT_S = 10


def binary() -> Path:
    """Return Prometheus' binary, fetching it when need be; fails with a text that says what to do."""
    if found := shutil.which(PACKAGE):
        return Path(found)
    if not (CACHE / BINARY).exists():
        fetch()
    return CACHE / BINARY


def fetch() -> None:
    CACHE.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE.parent) as folder:
        package = download(Path(folder))
        unpacked = Path(folder, "unpacked")
        subprocess.run(["dpkg", "-x", str(package), str(unpacked)], check=True, capture_output=True)
        shutil.rmtree(CACHE, ignore_errors=True)
        unpacked.rename(CACHE)


def download(folder: Path) -> Path:
    """Have apt download the package; with package lists of its own when the machine's are missing or old."""
    own = ["-o", f"Dir::State={folder}/state", "-o", f"Dir::Cache={folder}/cache", "-o", "APT::Sandbox::User="]
    own += ["-o", "Dir::State::Status=/var/lib/dpkg/status"]
    said = ""
    for options, updates in (([], False), (own, True)):
        for part in ("state/lists/partial", "cache/archives/partial"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        commands = ([["apt-get", *options, "update"]] if updates else []) + [["apt-get", *options, "download", PACKAGE]]
        for command in commands:
            said = run(command, folder)
        if packages := sorted(folder.glob(f"{PACKAGE}_*.deb")):
            return packages[0]
    raise AssertionError(
        f"This test runs a real Prometheus. There is none on PATH, and `apt-get download {PACKAGE}` has failed:\n"
        f"{said}\nInstall one (Debian's package `{PACKAGE}`, or the archive from prometheus.io), or put its binary at "
        f"{CACHE / BINARY}."
    )


def run(command: list[str], folder: Path) -> str:
    """Run a command and return what it says."""
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError as error:
        return str(error)
    return result.stdout + result.stderr


class Prometheus:
    """Scrapes a server with the shipped configuration, on the server's ports; ended with the block."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._folder = folder
        self._config = folder / "prometheus.yml"
        self._config.write_text(yaml.safe_dump(config_for(server)))
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", trust_env=False, timeout=30)

    def __enter__(self) -> "Prometheus":
        command = [str(binary()), f"--config.file={self._config}", f"--storage.tsdb.path={self._folder / 'data'}"]
        command += [f"--web.listen-address=127.0.0.1:{self._port}", "--log.level=warn"]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        eventually(self._is_ready, "Prometheus ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def targets(self) -> dict[str, str]:
        """Return the health of each target: its URL -> up, down or unknown."""
        return {target["scrapeUrl"]: target["health"] for target in self._get("targets")["activeTargets"]}

    def values(self, expression: str) -> list[float]:
        """Evaluate an expression now; returns the values that are numbers. Fails when Prometheus refuses it."""
        results = self._get("query", query=expression)["result"]
        return [value for result in results if math.isfinite(value := float(result["value"][1]))]

    def by_label(self, label: str, expression: str) -> dict[str, float]:
        """Evaluate an expression now, and return its values by a label of theirs."""
        return {row["metric"][label]: float(row["value"][1]) for row in self._get("query", query=expression)["result"]}

    def has(self, series: str) -> bool:
        """Say whether a series has been there at any time."""
        return bool(self._get("series", **{"match[]": series}))

    def _get(self, what: str, **query: str) -> Any:
        response = self._http.get(f"/api/v1/{what}", params=query)
        assert response.status_code == 200, f"{query}: {response.text}"
        return response.json()["data"]


def config_for(server: Server) -> Config:
    """Return the shipped configuration with this server's paths and ports, and scrapes in quick succession."""
    config: Config = yaml.safe_load(CONFIG.read_text())
    config["global"]["scrape_interval"] = f"{SCRAPE_S}s"
    ray, haproxy = config["scrape_configs"]
    ray["file_sd_configs"] = [{"files": [str(server.path.parent / "prom_metrics_service_discovery.json")]}]
    flags = server.config["controller_options"]["runtime_env"]["env_vars"]
    haproxy["static_configs"] = [{"targets": [f"127.0.0.1:{flags['RAY_SERVE_HAPROXY_METRICS_PORT']}"]}]
    return config
