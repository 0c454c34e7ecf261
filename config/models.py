"""Typed settings of the applications: what stands under `args:` in `serve_config.yaml`."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from config.auth import AuthSettings
from config.guided import EngineGuidedSettings
from config.instances import InstanceSettings
from config.limits import Deadlines, RequestLimits
from config.routing import RoutingSettings
from config.settings import ApplicationSettings, Settings
from config.streaming import StreamingSettings
from config.tracing import GatewayTracingSettings, TracingSettings
from config.writing import WritingSettings

PROJECT_ROOT = Path(__file__).parent.parent
MODEL_NAME_PATTERN = r"^[a-zA-Z0-9._-]{1,50}$"
MODEL_APP_PREFIX = "model-"
GATEWAY_APP = "gateway"

ModelName = Annotated[str, StringConstraints(pattern=MODEL_NAME_PATTERN)]
Backend = Literal["vllm", "fake"]
Device = Literal["auto", "cpu", "gpu"]
DataPlane = Literal["handle", "direct"]


def is_model_name(name: str) -> bool:
    """Say whether a model or an instance may be called so.

    Nothing may be called `..`: clients take that out of a URL before they send it.
    """
    return re.fullmatch(MODEL_NAME_PATTERN, name) is not None and name.strip(".") != ""


class GatewaySettings(ApplicationSettings):
    """Arguments of the application `gateway`."""

    model_config = ConfigDict(hide_input_in_errors=True)  # the input holds keys

    default_model: ModelName | None = None
    """Model that serves requests without `model`. With exactly one model it is that one, set or not."""
    discovery_interval_s: float = Field(default=1.0, ge=0.1, le=60)
    """How often the gateway looks which models exist and which are ready, in seconds."""
    retry_after_s: int = Field(default=5, ge=1, le=3600)
    """`Retry-After` of a 503 while a model is loading, in seconds."""
    max_concurrent_requests: int = Field(default=1000, ge=1, le=10**6)
    """Requests that one ingress replica has under way; more are answered 429."""
    auth: AuthSettings = AuthSettings()
    limits: RequestLimits = RequestLimits()
    deadlines: Deadlines = Deadlines()
    writing: WritingSettings = WritingSettings()
    instances: InstanceSettings = InstanceSettings()
    tracing: GatewayTracingSettings | None = None
    """OpenTelemetry spans of requests; null: none, `{}`: as the environment says. Models have their own."""
    data_dir: str = "~/.vllm-graph"
    """Where the server keeps what outlives it: instances and their logs, keys (hashed), the generated management key's
    hash. With several nodes: a folder that all share, or pin `Instances` to one node."""
    allow_open_dashboard: bool = False
    """Start although Ray's dashboard listens on the network without authentication, where it runs anyone's code."""


class CpuSettings(Settings):
    """How an engine runs on a machine without a GPU. Ignored on GPUs."""

    threads: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """OpenMP threads of one replica; `auto`: one per core of its share, but one core is left to other processes."""
    max_replicas_per_node: int = Field(default=1, ge=1, le=1024)
    """How many replicas share the cores of a machine: replica number N computes on the Nth share."""
    engine_args: dict[str, Any] = {"kv_cache_memory_bytes": 2**30, "block_size": 32}
    """vLLM engine arguments that hold on CPU only; `engine_args` of the model wins over them.

    Without `kv_cache_memory_bytes` vLLM demands 90 % of the machine's memory; blocks of 128 tokens share few prefixes.
    """


class FakeEngineSettings(Settings):
    """The engine without a model: deterministic text at a set speed, for tests of the graph and load on front doors."""

    ttft_s: float = Field(default=0.0, ge=0, le=3600)
    """Time to the first token, in seconds."""
    itl_s: float = Field(default=0.0, ge=0, le=3600)
    """Time between two tokens, in seconds."""
    start_s: float = Field(default=0.0, ge=0, le=3600)
    """Time to start, in seconds."""
    hang_after_requests: int | None = Field(default=None, ge=0)
    """Answer so many requests, then none any more; null: never hang."""
    seed: int = 0
    """Another seed gives other text; the same seed and prompt always give the same text."""
    max_model_len: int = Field(default=4096, ge=16, le=2**24)
    """Context window, in tokens."""
    default_max_tokens: int = Field(default=64, ge=1, le=2**24)
    """How many tokens an answer has when the request does not limit it (a fake model never ends by itself)."""


class ScoringSettings(Settings):
    """How an engine scores documents (highlights), which must not delay chats."""

    max_concurrent_requests: int = Field(default=1, ge=1, le=1024)
    """Documents that one replica scores at once; more wait for their turn. One is enough to keep an engine busy, and
    vLLM's `long_prefill_token_threshold` does not slow down what is alone."""
    priority: int = Field(default=10, ge=0, le=10**6)
    """Chats have priority 0, and the lower goes first."""
    warm_up_tokens: int = Field(default=64, ge=2, le=2**20)
    """Length of the text that a replica scores before it is ready, so that the first request is as fast as later ones.
    At most half the context window. More takes longer to start, and memory: tokens times vocabulary times 4 bytes."""


class ModelSettings(ApplicationSettings):
    """Arguments of one application `model-<name>`."""

    name: ModelName
    """What clients write as `model`; the application must be called `model-<name>`."""
    backend: Backend = "vllm"
    """The engine: vLLM, or the fake one."""
    engine_args: dict[str, Any] = {}
    """vLLM's own arguments of `vllm serve`, with dashes or underscores. `model` is required with the vLLM backend."""
    device: Device = "auto"
    """`auto`: GPUs when the cluster has any, else the CPU."""
    data_plane: DataPlane = "handle"
    """`handle`: the gateway passes answers on. `direct`: HAProxy gets them from the engine's replica, which then does
    what the gateway does with requests; the application's `route_prefix` must be `/models/<name>`."""
    num_cpus: float = Field(default=1.0, ge=0, le=1024)
    """Ray CPUs that one replica reserves. Stands here and not under `ray_actor_options`, which would replace what the
    builder asks for, GPUs included."""
    request_format: str = "default-template"
    """How chat messages become a prompt: `default-template` (the model's own), `plain` (contents joined by one space),
    a path to a Jinja file, or Jinja text."""
    completions_default_max_tokens: int | None = Field(default=None, ge=1)
    """`max_tokens` of a completion that sets none; null: what fits in the window. OpenAI's default is 16."""
    environment: dict[str, str] = {}
    """Environment variables of the engine's processes, such as `VLLM_*`; set before vLLM is imported."""
    abort_timeout_s: float = Field(default=5.0, gt=0, le=600)
    """How long an abandoned request may take to abort by itself before its handler is cancelled, in seconds."""
    max_buffered_bytes: int = Field(default=256 * 1024, ge=1024, le=2**30)
    """Most response bytes a replica holds for one slow reader before the engine's output waits."""
    allow_request_chat_template: bool = False
    """Let requests bring a `chat_template` of their own: a program of theirs, run in a sandbox."""
    chat_template_kwargs: frozenset[str] = frozenset()
    """Names that requests may use in `chat_template_kwargs`, besides those that the model's template reads."""
    media_domains: frozenset[str] = frozenset()
    """Hosts that images, audio and video of a request may be fetched from; empty: none, only inline `data:` URLs."""
    probe_interval_s: float = Field(default=30.0, ge=0.1, le=3600)
    """An engine that has done nothing for so long is asked for a token, to see that it lives, in seconds."""
    probe_timeout_s: float = Field(default=30.0, ge=0.1, le=3600)
    """How long `/health/deep` waits for a token, in seconds."""
    hung_after_s: float = Field(default=120.0, ge=0.1, le=86400)
    """An engine that has work and makes no step for so long is replaced, in seconds. A step can be long: a whole long
    prefill when it is not chunked, a kernel that is compiled at first use."""
    tracing: TracingSettings | None = None
    """vLLM's spans, as parts of the traces that the gateway begins; null: none, `{}`: as the environment says."""
    routing: RoutingSettings = RoutingSettings()
    scoring: ScoringSettings = ScoringSettings()
    streaming: StreamingSettings = StreamingSettings()
    guided: EngineGuidedSettings = EngineGuidedSettings()
    cpu: CpuSettings = CpuSettings()
    fake: FakeEngineSettings = FakeEngineSettings()

    @property
    def app_name(self) -> str:
        """Name of the Serve application that serves this model."""
        return MODEL_APP_PREFIX + self.name
