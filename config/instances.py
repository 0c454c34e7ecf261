"""Settings of model instances that are made over the API, and what each of them is defined by."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from config.settings import Settings

BackendType = Literal["vllm", "fake"]


class InstanceSettings(Settings):
    """How the gateway manages instances; stands under `instances` of its `args`."""

    max_instances: int = Field(default=1000, ge=1, le=10**6)
    """Most instances that can be defined, stopped ones too."""
    max_keys: int = Field(default=10_000, ge=1, le=10**6)
    """Most API keys that can be stored."""
    max_running_instances: int | None = Field(default=None, ge=1)
    """Most instances that run at once. For another one the least recently used without a request under way is stopped.
    Null: what the machines can hold."""
    on_demand_start_timeout_s: float = Field(default=600.0, gt=0, le=86400)
    """How long a request waits for its instance to start."""
    eviction_patience_s: float = Field(default=5.0, ge=0, le=86400)
    """A request whose instance has no room waits so long for another one to be unused; after that the least recently
    used one is stopped though it is in use: it finishes what it has under way, and new requests for it wait."""
    start_timeout_s: float = Field(default=1800.0, gt=0, le=86400)
    """How long an instance may take until it is ready; after that its start has failed."""
    drain_timeout_s: float = Field(default=3600.0, gt=0, le=86400)
    """How long a stopping instance may finish what it has under way."""
    sync_interval_s: float = Field(default=0.5, ge=0.05, le=60)
    """How often ingress replicas tell which instances are in use, and hear what has changed: a revoked key is good for
    this long at most."""
    poll_interval_s: float = Field(default=0.5, ge=0.05, le=60)
    """How often the state of instances that start, stop or change is looked at."""
    calm_interval_s: float = Field(default=2.0, ge=0.05, le=60)
    """How often it is looked whether instances that run still do. One whose replica Serve has replaced in less than
    this is not seen to have crashed; an engine takes longer to load."""
    stale_after_s: float = Field(default=10.0, ge=1, le=3600)
    """An ingress replica that has not been heard of for so long is gone, and what it had under way with it."""
    store_wait_s: float = Field(default=60.0, ge=0, le=3600)
    """How long a new manager of instances waits for the one before it to end: only one at a time has the store."""
    max_log_bytes: int = Field(default=4 * 2**20, ge=4096, le=2**30)
    """Most of an instance's own log that is kept."""
    command_timeout_s: float = Field(default=60.0, gt=0, le=600)
    """How long vLLM's parser may take for a command or for options; its first answer takes seconds."""
    command_idle_s: float = Field(default=300.0, gt=0, le=86400)
    """The process of vLLM's parser ends when nobody has asked it anything for so long: it holds some 500 MB."""
    defaults: dict[str, Any] = {}
    """Arguments of every instance's application, as under `args` of a `model-<name>` application; the instance's own
    options win over them."""
    deployment: dict[str, Any] = {}
    """Serve's options of every instance's Engine, as under `deployments:`; `autoscaling` of an instance wins."""


class InstanceOptions(Settings):
    """What an instance is defined by; the body of create and update."""

    backend_type: BackendType = "vllm"
    """The engine: vLLM, or the fake one, with no model, to try things out."""
    backend_options: dict[str, Any] = {}
    """Arguments of `vllm serve`, `model` among them, with dashes or underscores; settings of the fake engine."""
    auto_restart: bool = True
    """Start it again when it has crashed."""
    max_restarts: int = Field(default=3, ge=0, le=1000)
    """How often in a row; running for a while, longer than its start may take, begins the count anew."""
    restart_delay: float = Field(default=5.0, ge=0, le=3600)
    """Before each restart, in seconds."""
    on_demand_start: bool = True
    """Start it when a request names it."""
    idle_timeout: float = Field(default=30.0, ge=0, le=10**6)
    """Stop it when no request has named it for so long, in minutes; 0: never."""
    environment: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    """Environment variables of the engine's processes."""
    autoscaling: dict[str, Any] = {}
    """Serve's `autoscaling_config` of its replicas."""
    group: str | None = Field(default=None, min_length=1, max_length=50)
    """At most one instance of a group runs: starting one stops the others."""
    settings: dict[str, Any] = {}
    """Other arguments of its application, such as `request_format` or `cpu`."""


def first_problem(error: ValueError) -> tuple[str, str]:
    """Return which field is wrong, "" when it is not a field, and why, without what was given: it may be a secret."""
    if not isinstance(error, ValidationError):
        return "", str(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ".".join(map(str, first["loc"]))[:128], first["msg"].removeprefix("Value error, ")
