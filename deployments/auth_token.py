"""Ray's token authentication for a cluster on this machine: the user's own token where there is one, else a new one."""

import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path

MODE = "RAY_AUTH_MODE"
TOKEN = "RAY_AUTH_TOKEN"
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"


class AuthToken:
    """What a cluster's processes, its commands and HTTP clients need to be let in."""

    def __init__(self, settings: Mapping[str, str] = os.environ) -> None:
        """Look for the user's token, as Ray does; raises ValueError when the file that the user names is no token."""
        self.is_on = settings.get(MODE, "").lower() != "disabled"
        self.environment: dict[str, str] = {MODE: "token"} if self.is_on else {}
        """Environment variables for Ray's processes and commands, besides those that the user has set."""
        self.place = ""
        """Where a person finds the token."""
        self._value = ""
        self._file: Path | None = None
        if self.is_on:
            self.place, self._value = find_token(settings)

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers for Ray's dashboard."""
        return {"Authorization": f"Bearer {self._value}"} if self._value else {}

    def save(self) -> None:
        """Make a token in a file for this user only, unless the user has one."""
        if not self.is_on or self._value:
            return
        self._value = secrets.token_hex(32)
        descriptor, name = tempfile.mkstemp(prefix="vllm-graph-token-")
        with os.fdopen(descriptor, "w") as file:
            file.write(self._value)
        # The path and not the token: an environment can be read (`ps e`), and ends up in logs.
        self.environment[TOKEN_PATH] = self.place = name
        self._file = Path(name)

    def remove(self) -> None:
        """Remove the file that `save` made."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)


def find_token(settings: Mapping[str, str]) -> tuple[str, str]:
    """Return (place, token) of the token that Ray would take, empty when there is none."""
    if token := settings.get(TOKEN, "").strip():
        return f"your {TOKEN}", token
    named = settings.get(TOKEN_PATH)
    path = Path(named or Path.home() / ".ray" / "auth_token")
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        if named:
            # Likely left from a cluster that has ended, whose exports were pasted into this terminal.
            raise ValueError(f"unset {TOKEN_PATH}, or name a file with a token: {error}") from error
        return "", ""
    if named and not token:
        raise ValueError(f"unset {TOKEN_PATH}, or name a file with a token: {path} is empty")
    return (str(path), token) if token else ("", "")
