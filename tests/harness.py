"""Start the product as a user does (Ray, `serve deploy`, HTTP) on ports of its own, and look at it from outside."""

import contextlib
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx
import openai
import psutil
import yaml

from config.models import MODEL_APP_PREFIX, PROJECT_ROOT
from deployments.guided_types import CompilerStats, EngineGrammars
from deployments.launch import LocalCluster, deploy, wait_until_ready
from deployments.openai_paths import DIRECT_PREFIX
from deployments.ports import free_port
from deployments.types import EngineStats, Usage
from tests.engine_probe import PREFIX

Config = dict[str, Any]
Plane = Literal["handle", "direct"]
PLANES: tuple[Plane, ...] = ("handle", "direct")
T = TypeVar("T")
START_TIMEOUT_S = 600
WAIT_TIMEOUT_S = 300


def default_config() -> Config:
    """Return the shipped `serve_config.yaml`."""
    config: Config = yaml.safe_load((PROJECT_ROOT / "serve_config.yaml").read_text())
    return config


def isolated(config: Config, data_dir: Path) -> Config:
    """Return the config on ports that nothing else uses, and with its state in `data_dir`."""
    moved = copy.deepcopy(config)
    moved["http_options"]["port"] = free_port()
    application(moved, "gateway")["args"]["data_dir"] = str(data_dir)
    flags = moved["controller_options"]["runtime_env"]["env_vars"]
    for name in ("HAPROXY_STATS_PORT", "HAPROXY_METRICS_PORT", "FALLBACK_PROXY_HTTP_PORT"):
        flags[f"RAY_SERVE_{name}"] = str(free_port())
    flags["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"] = "1"  # 30 s, for proxies on other nodes to take notice
    return moved


def application(config: Config, name: str) -> Config:
    return next(app for app in config["applications"] if app["name"] == name)


def fake_model(name: str, **fake: Any) -> Config:
    """Make an application `model-<name>` of the fake engine; keywords are FakeEngineSettings."""
    model = copy.deepcopy(application(default_config(), "model-demo"))
    model["name"] = f"model-{name}"
    model["args"] = {"name": name, "backend": "fake", "fake": fake, "num_cpus": 0.1}
    return model


def sleepy_model() -> Config:
    """Make a model of the fake engine that is scaled to zero until somebody asks it."""
    model = fake_model("sleepy", start_s=3)
    model["deployments"][0]["autoscaling_config"] |= {"min_replicas": 0, "max_replicas": 1, "metrics_interval_s": 1}
    return model


def on_plane(config: Config, plane: Plane) -> Config:
    """Return the config with all its models on a data plane; they are on the handle plane unless they say otherwise."""
    moved = copy.deepcopy(config)
    for app in moved["applications"]:
        if plane == "direct" and app["name"].startswith(MODEL_APP_PREFIX):
            app["args"]["data_plane"] = plane
            app["route_prefix"] = DIRECT_PREFIX + app["args"]["name"]
    return moved


@dataclass
class Server:
    """A running graph, all its models on one data plane."""

    config: Config
    path: Path
    cluster: LocalCluster
    plane: Plane = "handle"

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.config['http_options']['port']}"

    @cached_property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.base_url, timeout=180)

    @cached_property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.base_url}/v1", api_key="none", max_retries=0, timeout=180)

    def close(self) -> None:
        self.http.close()
        self.openai.close()
        if "_probe" in vars(self):
            with self._probe:
                self._probe.kill()

    def deploy(self, config: Config) -> None:
        """Run `serve deploy` with another config; returns before it has taken effect."""
        self.config = config = on_plane(config, self.plane)
        self.path.write_text(yaml.safe_dump(config, sort_keys=False))
        deploy(self.cluster, self.path)

    def wait_until_ready(self) -> None:
        wait_until_ready(self.cluster, self.path, START_TIMEOUT_S)

    def replicas(self, app: str, deployment: str = "Engine") -> list[Config]:
        """Return Serve's details of each replica: state, pid, node."""
        details = self.cluster.read("/api/serve/applications/") or {}
        found = details["applications"].get(app, {}).get("deployments", {}).get(deployment, {}).get("replicas", [])
        return [replica for replica in found if replica["state"] != "STOPPED"]

    def running(self, app: str, deployment: str = "Engine") -> list[Config]:
        return [replica for replica in self.replicas(app, deployment) if replica["state"] == "RUNNING"]

    def actors(self, name: str) -> set[int]:
        """Return the processes of Ray actors of a class that are not Serve's, of this server's cluster alone."""
        found = set()
        for process in psutil.process_iter(["cmdline"]):
            with contextlib.suppress(psutil.Error):
                parent = process.parent() if name in str(process.info["cmdline"]) else None
                if parent is not None and str(self.path.parent) in str(parent.cmdline()):
                    found.add(process.pid)
        return found

    def stats(self, app: str) -> EngineStats:
        """Ask the engine of an application's replica for its load, over Serve's handle."""
        return EngineStats(**self._ask_engine("stats", app))

    def cost(self, app: str, path: str, body: Config) -> tuple[str, Usage]:
        """Send a request to an application's engine over Serve's handle; return the answer's body and what it cost."""
        answer = self._ask_engine("cost", app, path, json.dumps(body))
        return answer["text"], Usage(**answer["usage"])

    def grammars(self, app: str) -> list[EngineGrammars]:
        """Ask each engine core of an application what it has done with constraints."""
        return [EngineGrammars(**one) for one in self._ask_engine("grammars", app)]

    def compiler(self) -> CompilerStats:
        """Ask the GuidedCompiler, of which there is one replica, for its counts."""
        return CompilerStats(**self._ask_engine("compiler"))

    def _ask_engine(self, *question: str) -> Any:
        assert self._probe.stdin is not None
        assert self._probe.stdout is not None
        self._probe.stdin.write(json.dumps(question) + "\n")
        self._probe.stdin.flush()
        for line in self._probe.stdout:
            if line.startswith(PREFIX):
                return json.loads(line.removeprefix(PREFIX))
        raise AssertionError("the process that asks engines ended")

    @cached_property
    def _probe(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.engine_probe", self.cluster.address]
        return subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env={**os.environ, **self.cluster.environment},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def engine_core(self, app: str) -> psutil.Process:
        """Return the engine core's process of the application's only replica."""
        (replica,) = self.running(app)
        (core,) = [p for p in psutil.Process(replica["pid"]).children() if "VLLM" in "".join(p.cmdline())]
        return core


@contextlib.contextmanager
def serving(config: Config, data_dir: Path | None = None, plane: Plane = "handle") -> Iterator[Server]:
    """Serve a config until the block ends; everything started is ended. `data_dir` is kept, when given."""
    temp_dir = Path(tempfile.mkdtemp(prefix="vg", dir="/tmp"))  # Ray's sockets need a short path
    config = on_plane(isolated(config, data_dir or temp_dir), plane)
    path = temp_dir / "serve_config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    try:
        with LocalCluster(path, temp_dir) as cluster:
            deploy(cluster, path)
            wait_until_ready(cluster, path, START_TIMEOUT_S)
            with contextlib.closing(Server(config, path, cluster, plane)) as server:
                yield server
    finally:
        shutil.rmtree(temp_dir, ignore_errors=True)


def eventually(read: Callable[[], T | None], what: str, timeout_s: float = WAIT_TIMEOUT_S) -> T:
    """Call `read` until it returns something true, and return that; fails the test, naming `what`, at the deadline."""
    deadline, value = time.monotonic() + timeout_s, read()
    while not value:
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)
        value = read()
    return value
