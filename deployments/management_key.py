"""The management key that is made when none is configured: shown once, kept as its hash."""

import contextlib
import os
import secrets
from pathlib import Path

from config.auth import Key, digest
from config.models import GatewaySettings
from deployments.errors import InvalidRequestError

NAME = "generated"
FILE = "management_key.sha256"


def with_management_key(settings: GatewaySettings) -> GatewaySettings:
    """Return the settings with a management key in them; one that has just been made is printed, this once.

    Raises InvalidRequestError, which says what to do, when `data_dir` cannot be written or the key's name is taken.
    """
    if settings.auth.has("management"):
        return settings
    if any(key.name == NAME for key in settings.auth.keys):  # it would share its counts, and have no limits
        raise InvalidRequestError(f"`{NAME}` is the name of the generated management key: give yours another one")
    data_dir = Path(settings.data_dir).expanduser()
    try:
        sha256, made = stored_hash(data_dir)
    except OSError as error:
        raise InvalidRequestError(
            f"no management key is configured, and a generated one cannot be kept: {error}. "
            "Set VLLM_GRAPH_MANAGEMENT_KEYS where Ray is started, or `data_dir` of the gateway's `args`."
        ) from error
    if made is not None:
        print(f"management key, shown this once: {made} (its hash is kept in {data_dir / FILE})", flush=True)
    key = Key(name=NAME, kind="management", sha256=sha256)
    auth = settings.auth.model_copy(update={"keys": (*settings.auth.keys, key)})
    return settings.model_copy(update={"auth": auth})


def stored_hash(data_dir: Path) -> tuple[str, str | None]:
    """Return the hash of the generated key, and the key when there was none yet."""
    path = data_dir / FILE
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip(), None
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = "mgmt-" + secrets.token_urlsafe(32)
    draft = data_dir / f"{FILE}.{os.getpid()}"
    draft.write_text(digest(made) + "\n")
    try:
        draft.chmod(0o600)
        os.link(draft, path)  # unlike a rename this fails when another process was first
    except FileExistsError:
        return path.read_text().strip(), None
    finally:
        draft.unlink()
    return digest(made), made
