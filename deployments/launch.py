"""Start Ray on this machine and put a config on it, as `ray start` and `serve deploy` do: what `make serve` does."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import psutil
import yaml

from config.models import MODEL_APP_PREFIX
from deployments.auth_token import AuthToken
from deployments.local_processes import MARKER, end_cluster, marked_processes, tree
from deployments.loopback import ENGINES_ON_LOOPBACK, HOOKS, NODE_ON_LOOPBACK
from deployments.ports import free_port

BIN = Path(sys.executable).parent
POLL_S = 0.5
DASHBOARD_POLL_S = 0.05
ANSWER_TIMEOUT_S = 5
DEPLOY_TIMEOUT_S = 120
"""Serve answers when its controller and its proxies run."""
DASHBOARD_PORT = 8265
DRAINING_PERIOD = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
DRAINING_S = 30.0
"""Serve's own default."""
HAPROXY = BIN / "vllm-graph-haproxy"


class LaunchError(Exception):
    """Something is in the way; the text says what to do."""


class LocalCluster:
    """A Ray head node of our own, ended with the block: on loopback, with token authentication.

    temp_dir: where Ray keeps its sessions and logs; its own default when None.
    """

    def __init__(self, config: Path, temp_dir: Path | None = None) -> None:
        host, port = http_address(config)
        require_free(host, port)
        try:
            self._token = AuthToken()
        except ValueError as error:
            raise LaunchError(str(error)) from error
        self.address = f"127.0.0.1:{free_port()}"
        self.dashboard = f"http://127.0.0.1:{free_port(DASHBOARD_PORT)}"
        self._marker = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None
        self._temp_dir = temp_dir
        self._draining_s = draining_period_s(config)
        self._log_path = Path(tempfile.gettempdir()) / f"vllm-graph-ray-{os.getpid()}.log"

    def __enter__(self) -> "LocalCluster":
        say("starting Ray")
        command = [str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--include-dashboard=true"]
        command += ["--node-ip-address=127.0.0.1", f"--port={self.address.rsplit(':', 1)[1]}"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard.rsplit(':', 1)[1]}"]
        if self._temp_dir is not None:
            command.append(f"--temp-dir={self._temp_dir}")
        self._token.save()
        try:
            with self._log_path.open("wb") as log:
                self._process = subprocess.Popen(
                    command, stdout=log, stderr=subprocess.STDOUT, env=self._ray_environment(), start_new_session=True
                )
            self._wait_for_dashboard()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            say("stopping")
        finally:  # also when nobody listens any more: a closed terminal
            self._stop()

    @property
    def environment(self) -> dict[str, str]:
        """What a command or program that uses this cluster needs in its environment, besides its own."""
        return {**NODE_ON_LOOPBACK, **self._token.environment}

    def read(self, path: str) -> Any:
        """Return the JSON that the dashboard has at a path, None when there is none."""
        return read_json(self.dashboard + path, self._token.headers)

    def put(self, path: str, body: bytes) -> Any:
        """Put JSON at the dashboard's path; raises OSError, of which HTTPError has the dashboard's words."""
        headers = {**self._token.headers, "content-type": "application/json"}
        request = urllib.request.Request(self.dashboard + path, body, headers, method="PUT")
        return open_local(request, DEPLOY_TIMEOUT_S)

    def say_access(self) -> None:
        """Say how to use the dashboard and Ray's commands."""
        if not self._token.is_on:
            say(f"RAY_AUTH_MODE=disabled: every user of this machine can run code through {self.dashboard}")
            return
        exports = {**self.environment, "RAY_DASHBOARD_ADDRESS": self.dashboard}
        say(f"the dashboard {self.dashboard} asks once for the token; it is in {self._token.place}")
        say(f"for `serve status` elsewhere: export {' '.join(f'{name}={value}' for name, value in exports.items())}")

    def processes(self) -> list[psutil.Process]:
        """Return the cluster's processes: Ray's descendants, orphans with our marker, and the descendants of these."""
        assert self._process is not None
        pids = [self._process.pid, *(process.pid for process in marked_processes(self._marker))]
        found = {each.pid: each for pid in pids for each in tree(pid)}
        return list(found.values())

    def wait(self) -> None:
        """Block until Ray ends; raises LaunchError, since it should not."""
        assert self._process is not None
        self._process.wait()
        raise LaunchError(f"Ray ended by itself; its log is {self._log_path}")

    def _wait_for_dashboard(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise LaunchError(f"Ray did not start; its log is {self._log_path}")
            if self.read("/api/version") is not None:
                return
            time.sleep(DASHBOARD_POLL_S)
        raise LaunchError(f"Ray's dashboard did not answer at {self.dashboard}; Ray's log is {self._log_path}")

    def _ray_environment(self) -> dict[str, str]:
        if not HAPROXY.exists():
            raise LaunchError(f"{HAPROXY} is missing; run: make setup")
        # Ray would run replicas at the lowest priority, behind whatever else the machine does.
        defaults = {"RAY_worker_niceness": "0", "RAY_SERVE_HAPROXY_BINARY_PATH": str(HAPROXY)}
        # Nor would anything use the workers that Ray starts in advance: Serve's have an environment of their own.
        defaults["RAY_prestart_worker_first_driver"] = "0"
        return {**defaults, **ENGINES_ON_LOOPBACK, **os.environ, **self.environment, **HOOKS, MARKER: self._marker}

    def _stop(self) -> None:
        try:
            if self._process is not None:
                end_cluster(self._process, self._marker, self._draining_s)
        finally:
            self._token.remove()


def deploy(cluster: LocalCluster, config: Path) -> None:
    """Have Serve run a config, as `serve deploy` does; raises LaunchError with its words when it refuses.

    That command needs seconds to import Ray, which this process need not.
    """
    say(f"deploying {config}")
    body = json.dumps(yaml.safe_load(config.read_text())).encode()
    try:
        with cluster.put("/api/serve/applications/", body):
            pass
    except urllib.error.HTTPError as error:
        raise LaunchError(f"Serve refuses {config}:\n{error.read().decode(errors='replace')}") from error
    except OSError as error:
        raise LaunchError(f"{config} could not be deployed: {error}") from error


def wait_until_ready(cluster: LocalCluster, config: Path, timeout_s: float) -> None:
    """Print each application's state as it changes, until the gateway can call all; raises LaunchError if one fails."""
    base = "http://{}:{}".format(*http_address(config))
    begin = time.monotonic()
    shown: dict[str, str] = {}
    while time.monotonic() - begin < timeout_s:
        details = cluster.read("/api/serve/applications/") or {}
        applications = details.get("applications", {})
        states = {name: application["status"] for name, application in applications.items()}
        for name, state in states.items():
            if shown.get(name) != state:
                say(f"{name}: {state.lower()} ({time.monotonic() - begin:.0f} s)")
            if state == "DEPLOY_FAILED":
                raise LaunchError(f"{name} failed to deploy:\n{applications[name]['message']}")
        shown = states
        names = callable_models(base, states)
        if names is not None:
            say_ready(base, names, time.monotonic() - begin)
            return
        time.sleep(POLL_S)
    raise LaunchError(f"not ready after {timeout_s:.0f} s: {shown}; see {cluster.dashboard}")


def callable_models(base: str, states: dict[str, str]) -> list[str] | None:
    """Return the models' names once every application runs and the gateway can call every model, else None."""
    expected = {name.removeprefix(MODEL_APP_PREFIX) for name in states if name.startswith(MODEL_APP_PREFIX)}
    if set(states.values()) != {"RUNNING"}:
        return None
    if not expected:
        return []
    query = urllib.parse.urlencode([("model", name) for name in sorted(expected)])
    return sorted(expected) if answers(f"{base}/health?{query}") else None


def say_ready(base: str, names: list[str], took_s: float) -> None:
    say(f"ready after {took_s:.0f} s with the models: {', '.join(names) or 'none'}. Ctrl-C stops.")
    if not names:
        return
    key = "" if answers(f"{base}/v1/models") else " -H 'authorization: Bearer YOUR_KEY'"
    say("your first request:")
    body = json.dumps({"model": names[0], "messages": [{"role": "user", "content": "Say hi in French, one word."}]})
    print(f"\n  curl {base}/v1/chat/completions{key} -H 'content-type: application/json' -d '{body}'\n", flush=True)


def http_address(config: Path) -> tuple[str, int]:
    """Read (host, port) that a client on this machine uses; raises LaunchError when the file is not a config."""
    try:
        options: dict[str, Any] = yaml.safe_load(config.read_text()).get("http_options") or {}
        host, port = str(options.get("host", "127.0.0.1")), int(options.get("port", 8000))
    except (OSError, AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
        raise LaunchError(f"cannot read {config}: {error}") from error
    return ("127.0.0.1" if host == "0.0.0.0" else host), port


def draining_period_s(config: Path) -> float:
    """Read how long a replica stays that has nothing to do, in seconds: a flag of Serve's controller."""
    try:
        options = yaml.safe_load(config.read_text())["controller_options"]
        return float(options["runtime_env"]["env_vars"][DRAINING_PERIOD])
    except (KeyError, TypeError, ValueError):
        return DRAINING_S


def require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex((host, port)) == 0:
            raise LaunchError(f"port {port} is in use; stop what listens there or change http_options.port")


def read_json(url: str, headers: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Return the JSON at a URL, None when there is none."""
    try:
        with open_local(urllib.request.Request(url, headers=dict(headers))) as response:
            return json.load(response)
    except (OSError, ValueError):
        return None


def answers(url: str) -> bool:
    """Say whether a GET is answered 200."""
    try:
        with open_local(urllib.request.Request(url)):
            return True
    except OSError:
        return False


def open_local(request: urllib.request.Request, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
    # Everything asked here is on this machine; a proxy that the environment names is not for it.
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout_s)


def say(text: str) -> None:
    print(f"[vllm-graph] {text}", flush=True)
