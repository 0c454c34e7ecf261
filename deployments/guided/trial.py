"""What is known of a constraint while compilers try it, and the verdict that follows."""

from dataclasses import dataclass

from config.guided import CompileLimits
from deployments.guided.wire import End, Ended, Entered, Invalid, Made, Planned, Report, Reported, Stage, Unfit
from deployments.guided_types import Compiled, Compiler, Refused, Verdict

WORK: dict[Stage, str] = {
    "planning": "reading it",
    "compiling": "compiling it",
    "trying out": "finding out what may come next",
    "packing": "writing its compiled form",
}


@dataclass(slots=True)
class Attempt:
    """One compiler's."""

    compiler: Compiler
    job: int
    stage: Stage
    made: Made | None = None
    failure: Unfit | None = None
    is_over: bool = False
    """Its process is no more."""
    is_starved: bool = False


@dataclass(slots=True)
class Trial:
    """The attempts at one constraint. xgrammar's is preferred: its masks take less time in the engine."""

    key: str
    limits: CompileLimits
    xgrammar: Attempt
    llguidance: Attempt | None = None
    plan: Planned | None = None
    invalid: Invalid | None = None

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for attempt in (self.xgrammar, self.llguidance) if attempt is not None]

    @property
    def grammar(self) -> str | None:
        """Return what llguidance may still be tried with."""
        return self.plan.llguidance if self.plan is not None and self.llguidance is None else None

    def hear(self, event: Reported | Ended) -> None:
        """Take note of what a job says; those of other trials say nothing here."""
        for attempt in self.attempts:
            if attempt.job == event.job and isinstance(event, Reported):
                self._note(attempt, event.report)
            elif attempt.job == event.job and isinstance(event, Ended):
                attempt.is_over = True
                attempt.is_starved = event.end == "starved"
                if attempt.made is None and attempt.failure is None:
                    attempt.failure = self._failure(attempt, event.end)

    def _note(self, attempt: Attempt, report: Report) -> None:
        match report:
            case Planned():
                self.plan = report
            case Invalid():
                self.invalid = report
            case Entered():
                attempt.stage = report.stage
            case Made():
                attempt.made = report
            case Unfit():
                attempt.failure = report

    def _failure(self, attempt: Attempt, end: End) -> Unfit:
        work = WORK[attempt.stage]
        if end in ("late", "starved"):
            return Unfit(f"{work} is not done within {self.limits.timeout_s:g} s (compilation.timeout_s)", True)
        if end == "done":
            return Unfit("")  # it is not for this compiler
        return Unfit(f"the compiler crashed while {work}", True)

    @property
    def is_starved(self) -> bool:
        """Say whether an attempt failed because others had the processors."""
        return any(attempt.is_starved for attempt in self.attempts)

    def verdict(self, compile_s: float) -> Verdict | None:
        """Return what is certain; None: an attempt is under way, or llguidance is to be tried."""
        if self.invalid is not None:
            return Refused(self.key, self.invalid.message)
        if self.xgrammar.made is not None:
            return self._compiled("xgrammar", self.xgrammar.made, compile_s)
        if self.llguidance is not None and self.llguidance.made is not None:
            return self._compiled("llguidance", self.llguidance.made, compile_s)
        if self.xgrammar.failure is None or self.grammar is not None:
            return None
        return self._refused() if self.llguidance is None or self.llguidance.failure is not None else None

    def _compiled(self, compiler: Compiler, made: Made, compile_s: float) -> Compiled:
        enforced = self.plan.enforced if self.plan is not None else ()
        ignored = self.plan.ignored if self.plan is not None else ()
        return Compiled(self.key, compiler, made.artifact, compile_s, made.memory_bytes, enforced, ignored)

    def _refused(self) -> Refused:
        failures = [(attempt.compiler, attempt.failure) for attempt in self.attempts if attempt.failure is not None]
        reasons = [f"{compiler}: {failure.reason.rstrip('.')}" for compiler, failure in failures if failure.reason]
        is_costly = any(failure.is_costly for _, failure in failures)
        return Refused(self.key, "This constraint cannot be used. " + "; ".join(reasons) + ".", is_costly=is_costly)
