"""Who may use the server, and how much: API keys and their limits."""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from config.settings import Settings, expand_variables

T = TypeVar("T")
KeyKind = Literal["inference", "management"]

Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,50}$")]
"""What keys and models may be called."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class KeyLimits(Settings):
    """How much one key may use, over all ingress replicas together; null: no limit."""

    concurrent_requests: int | None = Field(default=None, ge=1)
    """Requests under way at once."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """Requests begun, in a sliding window of one minute."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens, in a sliding window of one minute. A request is refused once they are used up; the
    tokens of a request count when it ends."""


class Key(Settings):
    """One API key, known by its hash."""

    name: Name
    """Stands in the log when the key is refused, where the key itself never does."""
    kind: KeyKind = "inference"
    """`inference` opens `/v1` and `/api/*`; `management` opens `/api/v1/*` too."""
    sha256: Digest
    """SHA-256 of the key, in hexadecimal. Write `key:` instead to have it hashed when the settings are read."""
    limits: KeyLimits | None = None
    """Null: `default_limits`."""
    expires_at_s: int | None = None
    """When the key ends to be good, Unix seconds; null: never."""
    instances: frozenset[str] | None = None
    """The only models that the key opens, by name; null: all."""

    @model_validator(mode="before")
    @classmethod
    def _hash(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "key" not in value:
            return value
        if not isinstance(value["key"], str):
            raise ValueError("`key` must be a text: write quotes around it")  # noqa: TRY004  (pydantic's kind)
        return {**{name: item for name, item in value.items() if name != "key"}, "sha256": digest(value["key"].strip())}

    @field_validator("instances")
    @classmethod
    def _check_instances(cls, value: frozenset[str] | None, info: ValidationInfo) -> frozenset[str] | None:
        return not_for_management(value, info)

    def is_expired(self, now_s: float) -> bool:
        """Say whether the key is no longer good at a Unix time."""
        return self.expires_at_s is not None and now_s >= self.expires_at_s


class KeyOptions(Settings):
    """What a stored key is made from: the body of the API's call that makes one."""

    name: Name
    """What its owner calls it; no two stored keys have the same name."""
    kind: KeyKind = "inference"
    expires_in_s: int | None = Field(default=None, gt=0, le=10**10)
    """How long it is good, in seconds; null: for ever."""
    instances: list[Name] | None = Field(default=None, min_length=1, max_length=1000)
    """The only models that the key opens, by name, whether there are such now or later; null: all."""

    @field_validator("instances")
    @classmethod
    def _check_instances(cls, value: list[str] | None, info: ValidationInfo) -> list[str] | None:
        return not_for_management(value, info)


class AuthSettings(Settings):
    """Keys of the HTTP API. Only their hashes are kept.

    Keys of `${VARIABLES}` and of `keys_file` never reach Serve's state; one written into the YAML does, since Serve
    keeps that as it is.
    """

    keys: tuple[Key, ...] = ()
    """All keys. Besides those written here: `inference_keys` and `management_keys`, each a text of keys with commas
    between them (meant for `${VARIABLES}`), and `keys_file`, the path of a YAML file with a list like this one."""
    default_limits: KeyLimits = KeyLimits()
    """Limits of the keys that have none of their own. Management keys are not limited by it."""
    allow_open: bool = False
    """Serve inference without keys on addresses other than loopback."""
    allowed_origins: tuple[str, ...] = ()
    """Web pages that may call the API from a browser, such as `https://app.example.com`; `*`: all. A page on another
    origin needs both this and a key; cookies are never accepted. Without keys, pages of this machine may, too."""
    sync_interval_s: float = Field(default=1.0, ge=0.05, le=60)
    """How often ingress replicas tell each other what each key has used, in seconds: the counts of the others are this
    old at most."""

    replica_lost_after_s: float = Field(default=30.0, ge=1, le=3600)
    """When a replica that reports no more counts as gone, and what it had in flight as ended, in seconds."""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        rest = dict(value)
        keys = [*(rest.pop("keys", None) or ())]
        for kind in ("inference", "management"):
            keys += listed_keys(str(rest.pop(f"{kind}_keys", None) or ""), kind)
        if path := rest.pop("keys_file", None):
            keys += read_keys(Path(path).expanduser())
        return {**rest, "keys": keys}

    @model_validator(mode="after")
    def _check_names(self) -> "AuthSettings":
        for what, values in (("name", [key.name for key in self.keys]), ("key", [key.sha256 for key in self.keys])):
            if len(set(values)) < len(values):
                raise ValueError(f"two keys have the same {what}")
        return self

    def limits_of(self, key: Key) -> KeyLimits:
        if key.limits is not None:
            return key.limits
        return self.default_limits if key.kind == "inference" else KeyLimits()

    def has(self, kind: KeyKind) -> bool:
        return any(key.kind == kind for key in self.keys)

    def has_limits(self) -> bool:
        """Say whether any key is limited, so that replicas have counts to share; stored keys may come at any time."""
        return self.default_limits != KeyLimits() or any(self.limits_of(key) != KeyLimits() for key in self.keys)


def not_for_management(instances: T, info: ValidationInfo) -> T:
    if instances is not None and info.data.get("kind") == "management":
        raise ValueError("a management key opens every model; only an inference key can be held to some")
    return instances


def digest(key: str) -> str:
    """Return the SHA-256 of a key; raises ValueError when the key is too short to be one."""
    if len(key) < 16:
        raise ValueError("an API key must have at least 16 characters")
    return hashlib.sha256(key.encode()).hexdigest()


def listed_keys(text: str, kind: str) -> list[dict[str, str]]:
    keys = [key.strip() for key in text.split(",") if key.strip()]
    return [{"name": f"{kind}-{number}", "kind": kind, "key": key} for number, key in enumerate(keys, 1)]


def read_keys(path: Path) -> list[Any]:
    """Read a keys file and expand `${VARIABLES}` in it; raises ValueError when it is not a list."""
    try:
        keys = expand_variables(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise ValueError(f"keys_file {path}: {error}") from error
    except yaml.YAMLError:  # its text repeats the line, which may hold a key
        raise ValueError(f"keys_file {path}: this is not YAML") from None
    if isinstance(keys, list):
        return keys
    raise ValueError(f"keys_file {path}: must be a list of keys, each with `name` and `key` or `sha256`")
