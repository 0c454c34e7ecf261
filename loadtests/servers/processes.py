"""CPU time and memory of processes, and what part each plays: from /proc, so Linux only."""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
ENGINE = "engine core"
SERVER, INGRESS, PROXY, ROUTER, RAY, OTHER = "server", "ingress", "proxy", "router", "Ray", "other"
FRONT_DOOR = (SERVER, INGRESS, PROXY, ROUTER, RAY, OTHER)
"""Every role but the engine core's: what a token passes through, and what runs beside it."""
ROLES = (ENGINE, *FRONT_DOOR)

PATTERNS = (
    (ENGINE, r"^VLLM::"),
    (INGRESS, r"^ray::ServeReplica:.*:(Ingress|OpenAiIngress)\b"),
    (ROUTER, r"^ray::ServeReplica:.*:LLMRouter\b"),
    (SERVER, r"^ray::ServeReplica:.*:(Engine|LLMServer)\b"),
    (SERVER, r"vllm\.entrypoints\.openai\.api_server"),
    (PROXY, r"^ray::(ProxyActor|HAProxyManager)\b"),
    (PROXY, r"^\S*haproxy\b"),
    (OTHER, r"^ray::ServeReplica:"),
    (RAY, r"^ray::(ServeController|IDLE|[A-Za-z]*Agent)\b"),
    (RAY, r"/ray/(core/src|dashboard|_private|autoscaler)/"),
    (RAY, r"/ray start "),
)
"""The first one that is found in a command line decides; Ray's workers and vLLM's processes set theirs."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at one moment."""

    parent: int
    command: str
    cpu_s: float
    """User and system, of all its threads."""
    children_cpu_s: float
    """Of its children that have ended and that it has waited for."""


@dataclass(frozen=True, slots=True)
class Used:
    """What one process has used between two moments."""

    pid: int
    role: str
    command: str
    cpu_s: float


def role_of(command: str) -> str:
    return next((role for role, pattern in PATTERNS if re.search(pattern, command)), OTHER)


def name_of(command: str) -> str:
    """Return what a process is called in a table: its title, or its program without folders and options."""
    words = command.split()
    if not words or "::" in words[0]:
        return command
    program = words[0].rsplit("/", 1)[-1]
    if not program.startswith("python"):
        return program
    if "-c" in words:
        return "multiprocessing's resource tracker" if "resource_tracker" in command else f"{program} -c"
    return next((word.rsplit("/", 1)[-1] for word in words[1:] if not word.startswith("-")), program)


def snapshot(pids: Iterable[int]) -> dict[int, Sample]:
    """Read processes; those that are gone are left out."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text()
            found[pid] = to_sample(stat, Path(f"/proc/{pid}/cmdline").read_bytes())
    return found


def to_sample(stat: str, cmdline: bytes) -> Sample:
    """Read the text of /proc/PID/stat and cmdline; a name in the former may hold spaces and brackets."""
    name, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat.rsplit(")", 1)[1].split()
    ticks = [int(field) for field in fields[11:15]]
    command = cmdline.replace(b"\0", b" ").decode(errors="replace").strip()
    return Sample(int(fields[1]), command or name, sum(ticks[:2]) / TICKS_PER_S, sum(ticks[2:]) / TICKS_PER_S)


def used_between(before: Mapping[int, Sample], after: Mapping[int, Sample]) -> list[Used]:
    """Return what each process has used, most first; what a child used that has ended is its parent's."""
    found = []
    for pid, now in after.items():
        then = before.get(pid, Sample(0, "", 0.0, 0.0))
        # When a child ends, its whole life is added to its parent, and not only what came after `before`.
        ended_s = sum(child.cpu_s for each, child in before.items() if child.parent == pid and each not in after)
        children_s = max(0.0, now.children_cpu_s - then.children_cpu_s - ended_s)
        found.append(Used(pid, role_of(now.command), now.command, now.cpu_s - then.cpu_s + children_s))
    return sorted(found, key=lambda used: -used.cpu_s)


def used_while_waiting(pids: Callable[[], Iterable[int]], seconds: float) -> tuple[list[Used], float]:
    """Wait, and return what processes have used meanwhile, and how many seconds it really was."""
    before, begin_s = snapshot(pids()), time.perf_counter()
    time.sleep(seconds)
    return used_between(before, snapshot(pids())), time.perf_counter() - begin_s


def cpu_s_by_role(used: Iterable[Used]) -> dict[str, float]:
    totals = dict.fromkeys(ROLES, 0.0)
    for each in used:
        totals[each.role] += each.cpu_s
    return totals


def memory_bytes_by_role(pids: Iterable[int]) -> dict[str, int]:
    """Return proportional set sizes: a page that several processes share is divided among them, so it counts once."""
    totals = dict.fromkeys(ROLES, 0)
    for pid, sample in snapshot(pids).items():
        with contextlib.suppress(OSError):
            totals[role_of(sample.command)] += pss_bytes(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return totals


def pss_bytes(smaps_rollup: str) -> int:
    found = re.search(r"^Pss:\s+(\d+) kB$", smaps_rollup, flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
