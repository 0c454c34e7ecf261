"""Start Ray on this machine and put a config on it, through Ray's own commands: what `make serve` does."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
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
from deployments.loopback import ENGINES_ON_LOOPBACK, HOOKS, NODE_ON_LOOPBACK

BIN = Path(sys.executable).parent
POLL_S = 0.5
STOP_TIMEOUT_S = 10
DASHBOARD_PORT = 8265
MARKER = "VLLM_GRAPH_CLUSTER"
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
        found: dict[int, psutil.Process] = {}
        for process in [psutil.Process(self._process.pid), *marked_processes(self._marker)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {each.pid: each for each in [process, *process.children(recursive=True)]}
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
            time.sleep(POLL_S)
        raise LaunchError(f"Ray's dashboard did not answer at {self.dashboard}; Ray's log is {self._log_path}")

    def _ray_environment(self) -> dict[str, str]:
        if not HAPROXY.exists():
            raise LaunchError(f"{HAPROXY} is missing; run: make setup")
        # Ray would run replicas at the lowest priority, behind whatever else the machine does.
        defaults = {"RAY_worker_niceness": "0", "RAY_SERVE_HAPROXY_BINARY_PATH": str(HAPROXY)}
        return {**defaults, **ENGINES_ON_LOOPBACK, **os.environ, **self.environment, **HOOKS, MARKER: self._marker}

    def _stop(self) -> None:
        try:
            self._stop_ray()
        finally:
            self._token.remove()

    def _stop_ray(self) -> None:
        """End Ray, then whatever is left of it: killed with Ray, Serve leaves HAProxy behind, which keeps its port."""
        if self._process is None:
            return
        begun: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            begun = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_TIMEOUT_S)
        kill(begun)
        # Going down, Serve still starts HAProxy anew, so what is left is looked for when everything else is gone.
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while (left := marked_processes(self._marker)) and time.monotonic() < deadline:
            kill(left)
        self._process.wait(STOP_TIMEOUT_S)


def kill(processes: list[psutil.Process]) -> None:
    """Kill processes and wait until they are gone; those that are gone already are passed over."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, STOP_TIMEOUT_S)


def marked_processes(marker: str) -> list[psutil.Process]:
    """Return the processes that were started with our marker in their environment, orphans too.

    Not all of ours: those that set a process title overwrite the environment that others can read.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARKER) == marker:
                found.append(process)
    return found


def deploy(cluster: LocalCluster, config: Path) -> None:
    """Run `serve deploy`; raises LaunchError with its words when it refuses."""
    say(f"deploying {config}")
    command = [str(BIN / "serve"), "deploy", str(config), "--address", cluster.dashboard]
    environment = {**os.environ, **cluster.environment, "NO_PROXY": "127.0.0.1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise LaunchError(f"serve deploy failed:\n{result.stdout}{result.stderr}")


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


def require_free(host: str, port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex((host, port)) == 0:
            raise LaunchError(f"port {port} is in use; stop what listens there or change http_options.port")


def free_port(preferred: int = 0) -> int:
    """Return `preferred` when it is free, else any free port."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read_json(url: str, headers: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Return the JSON at a URL, None when there is none."""
    try:
        with open_local(url, headers) as response:
            return json.load(response)
    except (OSError, ValueError):
        return None


def answers(url: str) -> bool:
    """Say whether a GET is answered 200."""
    try:
        with open_local(url, {}):
            return True
    except OSError:
        return False


def open_local(url: str, headers: Mapping[str, str]) -> Any:
    # Everything asked here is on this machine; a proxy that the environment names is not for it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=5)


def say(text: str) -> None:
    print(f"[vllm-graph] {text}", flush=True)
