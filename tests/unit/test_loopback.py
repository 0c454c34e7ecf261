from types import SimpleNamespace

import psutil
import pytest
from ray._common import tls_utils
from ray._common.utils import load_class
from ray._private.grpc_utils import create_grpc_server_with_interceptors
from ray._private.ray_constants import (
    ENABLE_RAY_CLUSTERS_ENV_VAR,
    RAY_START_HOOK,
    WORKER_PROCESS_SETUP_HOOK_ENV_VAR,
    env_bool,
)

from deployments.loopback import HOOKS, NODE_ON_LOOPBACK, on_ray_start, on_worker_start


def test_ray_finds_the_hooks() -> None:
    assert HOOKS.keys() == {RAY_START_HOOK, WORKER_PROCESS_SETUP_HOOK_ENV_VAR}
    assert load_class(HOOKS[RAY_START_HOOK]) is on_ray_start
    assert load_class(HOOKS[WORKER_PROCESS_SETUP_HOOK_ENV_VAR]) is on_worker_start


def test_ray_reads_the_switch_for_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert NODE_ON_LOOPBACK.keys() == {ENABLE_RAY_CLUSTERS_ENV_VAR}
    monkeypatch.setenv(ENABLE_RAY_CLUSTERS_ENV_VAR, NODE_ON_LOOPBACK[ENABLE_RAY_CLUSTERS_ENV_VAR])
    assert env_bool(ENABLE_RAY_CLUSTERS_ENV_VAR, True) is False


def test_ray_client_is_left_out() -> None:
    params = SimpleNamespace(ray_client_server_port=10001)
    on_ray_start(params, True)
    assert params.ray_client_server_port is None


def test_a_grpc_server_for_every_interface_listens_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_utils, "add_port_to_grpc_server", tls_utils.add_port_to_grpc_server)  # put back afterwards
    on_worker_start()
    server = create_grpc_server_with_interceptors(max_workers=1)
    port = tls_utils.add_port_to_grpc_server(server, "[::]:0")
    server.start()
    (listening,) = [c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.laddr.port == port]
    assert listening in ("127.0.0.1", "::ffff:127.0.0.1")
    server.stop(None).wait()
