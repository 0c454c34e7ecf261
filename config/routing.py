"""Settings of the choice among several replicas of one model."""

from typing import Literal

from pydantic import Field

from config.settings import Settings


class RoutingSettings(Settings):
    """Which replica of a model gets a request. With one replica nothing is chosen.

    A replica that has computed the beginning of a prompt before answers sooner: its engine finds that part in its
    prefix cache. Each gateway remembers by itself which beginnings it has sent where.
    """

    policy: Literal["prefix", "load"] = "load"
    """`load`: load alone, as Serve and HAProxy do it. `prefix`: sessions (`x-session-id`) and known beginnings of
    prompts first, then load; for models that have several replicas. On the direct data plane it takes one more process
    per node and a millisecond per request."""
    imbalance_requests: float = Field(default=8, ge=0, le=10**6)
    """A replica that knows the prompt's beginning is passed over when it has so many more requests under way than the
    least busy one, and is by `imbalance_ratio` busier as well."""
    bytes_per_request: int = Field(default=512, ge=1, le=2**30)
    """How much of a prompt a replica must know to make up for one request that it has more than the least busy one. So
    a short system prompt that all share does not bring everything to one replica."""
    session_imbalance_requests: float = Field(default=64, ge=0, le=10**6)
    """The same for the replica of a session: a session moves later than a prompt."""
    imbalance_ratio: float = Field(default=1.5, ge=1, le=1000)
    """How many times the least busy replica's requests are too many, when they also are too many by number."""
    equal_within_requests: float = Field(default=1, ge=0, le=10**6)
    """Replicas whose requests differ by no more are equally busy. Among those that know a prompt's beginning equally
    well, or not at all, the prompt decides, so that all gateways choose the same one."""
    block_bytes: int = Field(default=128, ge=16, le=2**16)
    """Beginnings are compared in pieces of so many bytes of the request's body; about two of the engine's blocks."""
    max_prefix_bytes: int = Field(default=64 * 1024, ge=16, le=2**24)
    """How much of a prompt is compared, from its first byte on."""
    max_known_blocks: int = Field(default=100_000, ge=1, le=10**8)
    """How many pieces one gateway remembers, about 200 bytes of memory each; those not seen for longest go first."""
    max_replicas_per_block: int = Field(default=4, ge=1, le=1024)
    """How many replicas are remembered for one piece, such as a system prompt that all of them know."""
    choice_half_life_s: float = Field(default=2.0, gt=0, le=3600)
    """Where nobody is told that a request has ended (the direct data plane), each choice counts as load, after so many
    seconds by half, on top of the load that the replica itself reports."""
    stats_period_s: float = Field(default=1.0, ge=0.1, le=3600)
    """How often replicas report their load for it, in seconds."""
    answer_timeout_s: float = Field(default=2.0, gt=0, le=60)
    """How long HAProxy's question for a replica may wait when there is none, in seconds; less than
    RAY_SERVE_HAPROXY_INGRESS_REQUEST_ROUTER_TIMEOUT_S, after which a client would be answered 503."""
