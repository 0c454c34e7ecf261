"""Messages about model instances: plain, frozen, picklable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from config.auth import Key
from config.models import GatewaySettings

InstanceStatus = Literal["stopped", "running", "failed", "restarting", "shutting_down"]


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance, as its owner sees it."""

    id: str
    name: str
    status: InstanceStatus
    """`running` also while it loads: then it is not ready."""
    ready: bool
    created: int
    """Unix seconds."""
    options: Mapping[str, Any]
    """InstanceOptions as they were given, JSON values."""
    command: str
    """The `vllm serve` command that says the same as its backend options; "" for other engines."""
    on_demand_start: bool = True
    message: str = ""
    """Why it has failed."""
    is_declared: bool = False
    """Declared in the YAML: it can be looked at and used, not changed."""


@dataclass(frozen=True, slots=True)
class ParsedCommand:
    """What a `vllm serve` command says, and nothing that it does not say."""

    backend_options: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    """Options of vLLM's HTTP server, which have no meaning here."""
    extra_args: tuple[str, ...] = ()
    """What vLLM's parser does not know, as it was written."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What one ingress replica knows of the use of an instance."""

    in_flight: int
    last_request_s: float
    """Unix time."""


@dataclass(frozen=True, slots=True)
class Report:
    """What an ingress replica tells the Instances deployment."""

    replica: str
    seen: int
    """Version of the last Snapshot that it goes by."""
    activity: Mapping[str, Activity]
    """By instance name."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What an ingress replica needs to know of instances and keys."""

    version: int
    """Grows with every change."""
    instances: tuple[Instance, ...] = ()
    keys: tuple[Key, ...] = ()
    """The stored keys that are good now."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What holds for requests, for replicas that take them without the gateway."""

    version: int
    """Another one with every change."""
    settings: GatewaySettings = field(repr=False)
    keys: tuple[Key, ...]
    """The stored keys that are good now."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A stored API key, without the key."""

    id: str
    name: str
    kind: str
    created: int
    """Unix seconds."""
    expires: int | None
    """Unix seconds; None: never."""
    instances: tuple[str, ...] | None
    """The only instances that it opens; None: all."""
