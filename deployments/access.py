"""Who may reach the HTTP server: nobody but this machine, unless there are keys."""

import ipaddress

from config.auth import AuthSettings
from deployments.errors import InvalidRequestError

OPEN_HTTP = """\
HTTP listens on an address that others reach, and no inference key is configured. Do one of these:
- set VLLM_GRAPH_INFERENCE_KEYS (keys with commas between them) where Ray is started, and
  `inference_keys: ${VLLM_GRAPH_INFERENCE_KEYS}` under `auth` of the gateway's `args`;
- set `http_options.host` to 127.0.0.1;
- write `allow_open: true` under `auth` when something else keeps strangers out."""


def require_keys(auth: AuthSettings, is_on_loopback: bool) -> None:
    """Refuse to serve without inference keys on an address other than loopback, unless told to.

    Raises InvalidRequestError, which says what to do.
    """
    if not (auth.has("inference") or auth.allow_open or is_on_loopback):
        raise InvalidRequestError(OPEN_HTTP)


def is_loopback(host: str | None) -> bool:
    """Say whether a host of a server's settings is this machine's loopback; none means every interface."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address((host or "").strip("[]")).is_loopback
    except ValueError:
        return False
