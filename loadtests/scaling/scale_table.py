"""What a load on the fake engine cost by part, who was at its limit, and what a larger cluster needs: pure figures."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from loadtests.output import table
from loadtests.scaling.scale_load import Window
from loadtests.servers.processes import Used

MS, US = 1000, 1_000_000
HAPROXY, INGRESS, REPLICA = "HAProxy", "ingress", "engine replica"
ACTORS, CONTROLLER, REST, CLIENT = "proxy actors", "controller", "rest of Ray", "load client"
TOKEN_PARTS = (HAPROXY, INGRESS, REPLICA, CLIENT)
"""A token goes through these."""
BESIDE_PARTS = (ACTORS, CONTROLLER, REST)
"""These work for requests, or for nobody: what they use is no matter of tokens."""
PARTS = (*TOKEN_PARTS, *BESIDE_PARTS)
PATTERNS = (
    (HAPROXY, r"^\S*haproxy\b"),
    (INGRESS, r"^ray::ServeReplica:.*:Ingress\b"),
    (REPLICA, r"^ray::ServeReplica:.*:Engine\b"),
    (ACTORS, r"^ray::(ProxyActor|HAProxyManager)\b"),
    (CONTROLLER, r"^ray::ServeController\b"),
)
FULL = 0.9
"""Share of a core, or of the machine, from which on it is taken for the limit."""
REACHED = 0.9
"""Share of what is offered, from which on nothing is held up."""
TARGET_USE = 0.6
"""Share of a core that is planned for: the rest is for peaks, since queues grow without bound near 1."""


@dataclass(frozen=True, slots=True)
class Step:
    """One load on one arrangement."""

    ingresses: int
    engines: int
    streams: int
    tokens_each: int
    """Of each answer."""
    offered_per_s: float
    """Tokens that the engine would make, if nothing held it up."""
    window: Window
    cpu_s: dict[str, float]
    """By part."""
    busiest: str
    busiest_cores: float
    """Share of a core that the busiest process used; above 1 with several threads."""
    cores: float
    """Used by all these processes together, of `num_cores`."""
    num_cores: int
    idle_cores: dict[str, float]
    """Used by each part of this arrangement while nobody asks."""

    @property
    def tokens_per_s(self) -> float:
        return self.window.tokens / self.window.seconds

    def us_per_token(self, part: str) -> float:
        return self.cpu_s.get(part, 0.0) / max(self.window.tokens, 1) * US

    def for_load_s(self, part: str) -> float:
        """Return the CPU seconds that a part would not have used without the load."""
        return self.cpu_s[part] - self.idle_cores.get(part, 0.0) * self.window.seconds


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds of one part: what a request costs whatever its length, and what each of its tokens adds."""

    request_us: float
    token_us: float

    def cores(self, tokens_per_s: float, tokens_each: float) -> float:
        """Return how many cores a rate of tokens keeps busy, with answers of such a length."""
        return tokens_per_s * (self.token_us + self.request_us / tokens_each) / US


def part_of(pid: int, command: str, client_pid: int) -> str:
    if pid == client_pid:
        return CLIENT
    return next((part for part, pattern in PATTERNS if re.search(pattern, command)), REST)


def cpu_by_part(used: Iterable[Used], client_pid: int) -> dict[str, float]:
    totals = dict.fromkeys(PARTS, 0.0)
    for each in used:
        totals[part_of(each.pid, each.command, client_pid)] += each.cpu_s
    return totals


def limit_of(step: Step) -> str:
    """Say what held a step up, "" when it got what was offered."""
    if step.busiest_cores >= FULL:
        return f"{step.busiest}: one core is full"
    if step.cores >= FULL * step.num_cores:
        return "all cores are full"
    return "waits, or others' processes" if step.tokens_per_s < REACHED * step.offered_per_s else ""


def cost_of(part: str, short: Step, long: Step) -> Cost:
    """Separate what requests and tokens cost by two loads of answers of different lengths.

    Two equations: CPU time beyond the idle one = requests * request_us + tokens * token_us. What they would make
    negative is 0, and the other one the mean of the load that has more of it.
    """
    r1, t1, c1 = short.window.requests, short.window.tokens, short.for_load_s(part)
    r2, t2, c2 = long.window.requests, long.window.tokens, long.for_load_s(part)
    determinant = r1 * t2 - r2 * t1
    if not determinant:
        return Cost(0.0, max(0.0, c2) / max(t2, 1) * US)
    request_s, token_s = (c1 * t2 - c2 * t1) / determinant, (r1 * c2 - r2 * c1) / determinant
    if request_s < 0:
        request_s, token_s = 0.0, c2 / max(t2, 1)
    elif token_s < 0:
        request_s, token_s = c1 / max(r1, 1), 0.0
    return Cost(max(0.0, request_s) * US, max(0.0, token_s) * US)


def steps_table(steps: Sequence[Step]) -> str:
    """Return what was offered and reached, and what each part used, as a Markdown table.

    Microseconds are per token; percentages are of a core.
    """
    head = ["ingress x engines", "streams", "offered", "tokens/s", "TTFT p50 / p99, ms", "inter-token p99, ms"]
    rows = [[*head, *(f"{part}, us" for part in TOKEN_PARTS), *BESIDE_PARTS, "busiest process", "cores", "limit"]]
    for step in steps:
        cells = [f"{step.ingresses} x {step.engines}", str(step.streams), f"{step.offered_per_s:,.0f}"]
        cells.append(f"{step.tokens_per_s:,.0f}")
        cells.append(f"{step.window.ttft_p50_s * MS:.0f} / {step.window.ttft_p99_s * MS:.0f}")
        cells.append(f"{step.window.itl_p99_s * MS:.0f}")
        cells += [f"{step.us_per_token(part):.0f}" for part in TOKEN_PARTS]
        cells += [f"{step.cpu_s.get(part, 0.0) / step.window.seconds:.0%}" for part in BESIDE_PARTS]
        cells += [f"{step.busiest} {step.busiest_cores:.0%}", f"{step.cores:.2f} of {step.num_cores}"]
        rows.append([*cells, limit_of(step) or "-"])
    return table(rows[0], rows[1:])


def idle_table(steps: Sequence[Step]) -> str:
    """Return what each arrangement uses while nobody asks, in percent of a core, as a Markdown table."""
    parts = [part for part in PARTS if part != CLIENT]
    by_arrangement = {f"{step.ingresses} x {step.engines}": step.idle_cores for step in steps}
    rows = [[name, *(f"{idle.get(part, 0.0):.1%}" for part in parts)] for name, idle in by_arrangement.items()]
    return table(["ingress x engines", *parts], rows)


def costs_table(costs: Mapping[str, Cost]) -> str:
    rows = [["part", "us per request", "us per token", "tokens/s that fill one core"]]
    for part, cost in costs.items():
        per_core = f"{US / cost.token_us:,.0f}" if cost.token_us else "-"
        rows.append([part, f"{cost.request_us:,.0f}", f"{cost.token_us:.0f}", per_core])
    return table(rows[0], rows[1:])


def cluster_table(costs: Mapping[str, Cost], gpus: int, rates: Sequence[float], tokens_each: float) -> str:
    """Return the cores that a cluster's front door needs, for several speeds of its GPUs in tokens/s."""
    rows = [["a GPU's tokens/s", "the cluster's", "ingress cores", "HAProxy cores", "of one engine's process"]]
    for rate in rates:
        total = gpus * rate
        cores = [costs[part].cores(total, tokens_each) / TARGET_USE for part in (INGRESS, HAPROXY)]
        own = costs[REPLICA].cores(rate, tokens_each)
        rows.append([f"{rate:,.0f}", f"{total:,.0f}", *(f"{number:,.0f}" for number in cores), f"{own:.0%} of a core"])
    return table(rows[0], rows[1:])
