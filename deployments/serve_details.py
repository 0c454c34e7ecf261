"""Serve's applications and their replicas, as its controller describes them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica; "" and None: not known yet."""

    id: str
    state: str
    node_id: str = ""
    worker_id: str = ""
    log_path: str = ""
    """Serve's log of it, relative to Ray's logs on its node."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """The Engine of an application."""

    status: str
    message: str = ""
    target: int = 0
    """How many replicas Serve wants there to be."""
    replicas: tuple[Replica, ...] = ()
    dead: tuple[Replica, ...] = ()
    """The last that have ended."""

    @property
    def replica_states(self) -> Counter[str]:
        return Counter(replica.state for replica in self.replicas)


@dataclass(frozen=True, slots=True)
class Application:
    """One application of Serve; while it is being deleted it shows no deployments."""

    status: str
    message: str
    deployments: Mapping[str, Deployment]
    last_deployed_time_s: float = 0.0
    """Unix seconds; of an application that is not from the YAML, Serve never changes it."""
    declared_args: Mapping[str, Any] | None = None
    """Its `args` in the YAML; None: it is not from there."""
    route_prefix: str | None = None
    """None: it has no HTTP of its own."""


def to_application(details: Mapping[str, Any]) -> Application:
    """Read an application from the controller's details (ray.serve.schema.ApplicationDetails).

    `serve.status()` reads them, too, but validates every one of their fields: 30 ms of a core, each second.
    """
    config = details.get("deployed_app_config")
    is_declared = _word(details.get("source")) == "declarative" and config is not None
    return Application(
        _word(details["status"]),
        details["message"],
        {name: _to_deployment(each) for name, each in details["deployments"].items()},
        details["last_deployed_time_s"],
        (config.get("args") or {}) if config is not None and is_declared else None,
        details.get("route_prefix"),
    )


def _to_deployment(details: Mapping[str, Any]) -> Deployment:
    return Deployment(
        _word(details["status"]),
        details["message"],
        details["target_num_replicas"],
        tuple(_to_replicas(details["replicas"])),
        tuple(_to_replicas(details.get("recent_dead_replicas") or [])),
    )


def _to_replicas(details: Iterable[Mapping[str, Any]]) -> Iterable[Replica]:
    for each in details:
        places = (each.get(name) or "" for name in ("node_id", "worker_id", "log_file_path"))
        yield Replica(each["replica_id"], _word(each["state"]), *places)


def _word(value: Any) -> str:
    """Return the word of one of Serve's enumerations, which the details may hold as such."""
    return str(getattr(value, "value", value))
