"""Who can reach this cluster: looked up where the gateway is built, so that an open one is refused, not served."""

import os

import ray
from ray.experimental.internal_kv import _internal_kv_get
from ray.serve.context import _get_global_client

from deployments.access import is_loopback
from deployments.errors import InvalidRequestError

OPEN_DASHBOARD = """\
Ray's dashboard listens on {address} without authentication: whoever reaches it can run code here. Do one of these:
- turn on Ray's token authentication: `ray get-auth-token --generate`, copy the token to every node, and set
  RAY_AUTH_MODE=token for `ray start` and every other command;
- keep the dashboard on loopback: `ray start --head --dashboard-host=127.0.0.1`;
- write `allow_open_dashboard: true` under the gateway's `args` when something else keeps strangers out."""


def require_closed_dashboard(allow_open: bool) -> None:
    """Refuse a cluster whose dashboard anyone on its network may use; without a cluster there is nothing to refuse.

    Raises InvalidRequestError, which says what to do.
    """
    if allow_open or not ray.is_initialized():
        return
    address = dashboard_address()
    if address is not None and is_open(address, os.environ.get("RAY_AUTH_MODE", "")):
        raise InvalidRequestError(OPEN_DASHBOARD.format(address=address))


def dashboard_address() -> str | None:
    """Return "host:port" of the cluster's dashboard as it announces itself there, None when there is none."""
    address = _internal_kv_get("dashboard", namespace="dashboard")
    return None if address is None else str(address.decode())


def is_http_on_loopback() -> bool:
    """Say whether Serve's HTTP server listens on loopback only; also true when no Serve runs."""
    client = _get_global_client(raise_if_no_controller_running=False) if ray.is_initialized() else None
    return client is None or is_loopback(client.http_config.host)


def is_open(dashboard_address: str, auth_mode: str) -> bool:
    """Say whether a dashboard at "host:port" lets in strangers; Ray writes its node's address for 0.0.0.0."""
    return auth_mode.lower() != "token" and not is_loopback(dashboard_address.rpartition(":")[0])
