"""Whom `loadtests.compare` compares: how each server is started, found ready and ended.

All serve the demo model, with the engine settings of the bare server (`bare.ENGINE_ARGS`), which are those of
serve_config.yaml. Whatever else a contender does by default, it does here: vLLM itself binds its OpenMP threads to all
cores but one, and this project uses as many without binding them. Those on Ray are started by the same commands: a head
node on loopback with token authentication, and `serve deploy`.
"""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml

from config.models import PROJECT_ROOT
from deployments.haproxy import find_haproxy
from deployments.launch import LaunchError, LocalCluster, deploy, http_address, wait_until_ready
from deployments.ports import free_port
from loadtests.servers.bare import ENGINE_ARGS, ENVIRONMENT, HANG_S, MODEL, POLL_S, START_TIMEOUT_S, BareServer, ttft

MODEL_FOLDER = PROJECT_ROOT / "config" / "demo_model"
SHIPPED = PROJECT_ROOT / "serve_config.yaml"
RAYLLM_PACKAGES = PROJECT_ROOT / ".venv.rayllm" / "lib" / "python3.11" / "site-packages"
RAYLLM_ENVIRONMENT = {
    **ENVIRONMENT,
    "PYTHONPATH": str(RAYLLM_PACKAGES),
    # Its replicas ask for more CPUs than a small machine has, and would wait for ever; Ray only counts them.
    "RAY_OVERRIDE_RESOURCES": '{"CPU": 16}',
}
DIRECT_STREAMING = {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}

Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that has answered with a token."""

    url: str
    pids: Callable[[], list[int]]
    """Of all its processes, Ray's too."""
    start_s: float
    """From the first command to the first token."""
    deploy_s: float
    """From `serve deploy` to the first token; without Ray the same as `start_s`."""


Contender = Callable[[Path], AbstractContextManager[Running]]
"""Starts a server and ends it with the block; the folder is its own. Raises LaunchError or RuntimeError."""


@contextmanager
def bare(folder: Path) -> Iterator[Running]:
    """Run vLLM's own OpenAI server."""
    begin_s = time.perf_counter()
    server = BareServer(str(MODEL_FOLDER))
    took_s = time.perf_counter() - begin_s
    try:
        yield Running(str(server.http.base_url).rstrip("/"), server.pids, took_s, took_s)
    finally:
        server.close()


@contextmanager
def on_ray(config: Config, environment: Mapping[str, str], folder: Path) -> Iterator[Running]:
    """Run a Serve config on a Ray of its own, on a free port; `environment` is for all of Ray's processes."""
    path = write_config(config, folder)
    url = "http://{}:{}".format(*http_address(path))
    with ExitStack() as stack:
        with environment_of(environment):
            begin_s = time.perf_counter()
            cluster = stack.enter_context(LocalCluster(path))
            deploy_begin_s = time.perf_counter()
            deploy(cluster, path)
        wait_for_token(cluster, url)
        end_s = time.perf_counter()
        wait_until_ready(cluster, path, START_TIMEOUT_S)  # what serves no chats must not start beside the first load
        yield Running(url, partial(pids_of, cluster), end_s - begin_s, end_s - deploy_begin_s)


def pids_of(cluster: LocalCluster) -> list[int]:
    return [process.pid for process in cluster.processes()]


@contextmanager
def environment_of(variables: Mapping[str, str]) -> Iterator[None]:
    """Have variables in this process's environment, which LocalCluster hands on, until the block ends."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def wait_for_token(cluster: LocalCluster, url: str) -> None:
    """Ask until there is an answer; raises LaunchError when an application fails, or it takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    with httpx.Client(base_url=url, timeout=HANG_S) as http:
        while time.monotonic() < deadline:
            try:
                ttft(http, {})
                return
            except (httpx.HTTPError, RuntimeError):
                require_no_failure(cluster)
            time.sleep(POLL_S)
    raise LaunchError(f"no token from {url} after {START_TIMEOUT_S} s")


def require_no_failure(cluster: LocalCluster) -> None:
    details = cluster.read("/api/serve/applications/") or {}
    for name, application in details.get("applications", {}).items():
        if application["status"] == "DEPLOY_FAILED":
            raise LaunchError(f"{name} failed to deploy:\n{application['message']}")


def shipped(folder: Path) -> Config:
    """Read serve_config.yaml, with its data in this folder."""
    config: Config = yaml.safe_load(SHIPPED.read_text())
    (gateway,) = [each for each in config["applications"] if each["name"] == "gateway"]
    gateway["args"]["data_dir"] = str(folder / "data")
    return config


def write_config(config: Config, folder: Path) -> Path:
    """Write a Serve config to be served on a free port of loopback."""
    path = folder / "config.yaml"
    options = {**config.get("http_options", {}), "host": "127.0.0.1", "port": free_port()}
    path.write_text(yaml.safe_dump({**config, "http_options": options}))
    return path


def open_environment() -> dict[str, str]:
    """Return what opens the API of serve_config.yaml: keys in somebody's environment are for another server."""
    keys = {"VLLM_GRAPH_INFERENCE_KEYS": "", "VLLM_GRAPH_MANAGEMENT_KEYS": secrets.token_hex()}
    return {"HF_HUB_OFFLINE": "1", **keys}


@contextmanager
def graph(plane: str, folder: Path) -> Iterator[Running]:
    """Run this project: serve_config.yaml as shipped, but for its port, its data directory and the data plane."""
    config = shipped(folder)
    applications = {each["name"]: each for each in config["applications"]}
    applications["model-demo"]["args"]["data_plane"] = plane
    applications["model-demo"]["route_prefix"] = "/models/demo" if plane == "direct" else None
    with on_ray(config, open_environment(), folder) as running:
        yield running


@contextmanager
def rayllm(environment: Mapping[str, str], folder: Path) -> Iterator[Running]:
    """Run ray.serve.llm, by default as `environment` leaves it."""
    # As Ray comes: the script that LocalCluster would put before HAProxy is for this project's own configs.
    haproxy = {"RAY_SERVE_HAPROXY_BINARY_PATH": find_haproxy()}
    with on_ray(rayllm_config(), {**RAYLLM_ENVIRONMENT, **haproxy, **environment}, folder) as running:
        yield running


def rayllm_config() -> Config:
    """Return ray.serve.llm's application with the bare server's engine settings, everything else by default."""
    names = [name.removeprefix("--").replace("-", "_") for name in ENGINE_ARGS[::2]]
    engine = dict(zip(names, map(int, ENGINE_ARGS[1::2]), strict=True))
    llm: Config = {
        "model_loading_config": {"model_id": MODEL, "model_source": str(MODEL_FOLDER)},
        "engine_kwargs": engine,
        "accelerator_config": {"kind": "cpu"},
    }
    application = {
        "name": "rayllm",
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [llm]},
    }
    return {"proxy_location": "HeadOnly", "applications": [application]}


CONTENDERS: dict[str, Contender] = {
    "bare": bare,
    "ray.serve.llm": partial(rayllm, {}),
    "ray.serve.llm, HAProxy + direct streaming": partial(rayllm, DIRECT_STREAMING),
    "handle plane": partial(graph, "handle"),
    "direct plane": partial(graph, "direct"),
}
"""By name, in the order of the tables."""
