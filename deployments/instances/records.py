"""What is stored of an instance."""

from dataclasses import dataclass
from typing import Literal

from config.instances import InstanceOptions

Wanted = Literal["stopped", "running"]


@dataclass(frozen=True, slots=True)
class Record:
    """One instance as the store has it: all that must survive a crash of everything."""

    id: str
    name: str
    created: int
    """Unix seconds."""
    options: InstanceOptions
    command: str
    wanted: Wanted = "stopped"
    """What its owner, or a request, asked for last; written before it is done."""
    previous: InstanceOptions | None = None
    """While an update of a running instance is under way: the options to go back to when the new ones fail."""
    previous_command: str = ""
    failure: str = ""
    """Why it has failed: then it is wanted stopped."""
    num_restarts: int = 0
    """Since it was last started by somebody or ran for a while."""
    last_request_s: float = 0.0
    """Unix time; of its start when none has come since."""
