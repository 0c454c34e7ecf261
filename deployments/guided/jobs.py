"""What becomes of a forked process: it gives up what it inherited, is limited, tries one compiler, and ends."""

import contextlib
import ctypes
import math
import os
import resource
import signal
from pathlib import Path
from typing import NoReturn

from config.guided import CompileLimits, GuidedSettings
from deployments.guided.compile import try_llguidance, try_xgrammar
from deployments.guided.compilers import LoadedVocabulary
from deployments.guided.memory import address_space_bytes
from deployments.guided.wire import Report, Reported, Start, encode, send

NICENESS = 10
"""Engines, and whoever else is on the machine, go first."""
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)


def run_job(
    command: Start, vocabulary: LoadedVocabulary, settings: GuidedSettings, writer: int, forker: int
) -> NoReturn:
    """Be a job's process: write reports to `writer`, then end."""
    status = 1
    try:
        confine(settings.compilation, math.ceil(command.timeout_s), writer, forker)
        _work(command, vocabulary, settings, writer)
        status = 0
    finally:
        os._exit(status)  # nothing of the forker's is to be cleaned up here, and nothing printed


def confine(limits: CompileLimits, cpu_s: int, writer: int, forker: int) -> None:
    """Limit this process, and tie it to the one that forked it."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != forker:  # it ended before it was asked to take this process with it
        os._exit(1)
    _keep_only(writer)
    os.nice(NICENESS)
    with contextlib.suppress(OSError):  # when the machine has no memory left, this process ends and no engine does
        Path("/proc/self/oom_score_adj").write_text("1000")
    memory_bytes = address_space_bytes() + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    # The time on the wall is the limit. This one is for when nobody is left to look at the clock.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s + 1, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _work(command: Start, vocabulary: LoadedVocabulary, settings: GuidedSettings, writer: int) -> None:
    def tell(report: Report) -> None:
        send(writer, encode(Reported(command.job, report)))

    if command.compiler == "xgrammar":
        try_xgrammar(command.spec, vocabulary, settings.constraints, settings.compilation, tell)
    else:
        try_llguidance(command.grammar, vocabulary, settings.compilation, tell)


def _keep_only(writer: int) -> None:
    """Close every file but one: the others are the forker's, and compilers print what nobody needs."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.closerange(3, writer)
    os.closerange(writer + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
