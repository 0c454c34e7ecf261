"""What the manager of instances needs of the rest; tests pass their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from config.instances import InstanceOptions
from deployments.instance_types import ParsedCommand

AppState = Literal["absent", "starting", "running", "idle", "failed", "deleting"]
"""`idle`: scaled to zero by Serve; a request starts a replica."""


@dataclass(frozen=True, slots=True)
class App:
    """The Serve application of an instance, as it is now."""

    state: AppState
    message: str = ""
    """Why it has failed: Serve's words, with the replica's traceback."""
    num_starts: int = 0
    """Replicas that have been begun since it was deployed, as far as was seen: more than one means crashes."""
    deploying: bool = False
    """Serve is on the way from one definition to the next; what ran before serves on."""
    deploy_failed: bool = False
    """Serve gave up the last definition; what ran before may serve on."""
    is_declared: bool = False
    """It is the YAML's: not for the manager to touch."""


ABSENT = App("absent")


class Apps(Protocol):
    """Serve applications of instances, `model-<name>` each. Every method may be called again after a crash."""

    async def check(self, name: str, options: InstanceOptions) -> None:
        """Raise InvalidOptionsError when an instance with these options cannot be built."""

    async def run(self, name: str, options: InstanceOptions) -> None:
        """Deploy an instance, or deploy it anew: what runs serves on until its successor is ready. Returns at once.

        The same options again change nothing. Raises InsufficientResourcesError when the cluster can never hold it,
        NoRoomError when it cannot now, saying what is missing.
        """

    async def delete(self, name: str) -> None:
        """Have an instance's application ended once its requests have; returns at once, also when there is none."""

    async def states(self) -> Mapping[str, App]:
        """Return the applications `model-*` that are there, by instance name."""

    async def declared(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the models that the YAML declares: name -> `args` of the application."""

    async def log(self, name: str) -> str:
        """Return what the replicas that run, or ran last, have written, oldest first, bounded."""


class Commands(Protocol):
    """vLLM's own parser."""

    async def parse(self, command: str) -> ParsedCommand:
        """Read a command line; raises EmptyCommandError, CommandError."""

    async def command_of(self, backend_options: Mapping[str, Any]) -> str:
        """Check options as `vllm serve` would, and write the command that says them; raises InvalidOptionsError."""

    async def version(self) -> str:
        """Return vLLM's version."""


class Journal(Protocol):
    """Each instance's own log, across its starts, bounded."""

    def note(self, name: str, text: str) -> None: ...
    def read(self, name: str) -> str: ...
    def forget(self, name: str) -> None: ...
