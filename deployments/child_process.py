"""Starting a program of ours that reads what clients wrote: without the secrets of this process's environment."""

import os
import subprocess
import sys
from collections.abc import Mapping

from config.models import PROJECT_ROOT

INHERITED = frozenset("PATH HOME LANG LC_ALL TMPDIR LD_LIBRARY_PATH PYTHONPATH PYTHONHOME VIRTUAL_ENV".split())
"""Environment variables that it gets: no tokens, no keys."""


def start_python(
    *arguments: str, environment: Mapping[str, str], inherited: frozenset[str] = INHERITED
) -> "subprocess.Popen[bytes]":
    """Run Python with these arguments, and pipes to and from it; `environment` is added to what it inherits."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=PROJECT_ROOT,
        env={name: value for name, value in os.environ.items() if name in inherited} | dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
