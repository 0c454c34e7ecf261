"""Keys as the settings take them: hashed at once, from wherever they come."""

import hashlib
import pickle
import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.auth import AuthSettings, Key, KeyLimits, digest
from config.models import GatewaySettings

ONE, TWO = "sk-one-0123456789", "sk-two-0123456789"


def test_listed_keys_are_hashed_and_named() -> None:
    auth = AuthSettings.model_validate({"inference_keys": f"{ONE}, {TWO},", "management_keys": "m" * 16})
    assert [(key.name, key.kind) for key in auth.keys] == [
        ("inference-1", "inference"),
        ("inference-2", "inference"),
        ("management-1", "management"),
    ]
    assert auth.keys[0].sha256 == hashlib.sha256(ONE.encode()).hexdigest()


def test_no_key_is_left_anywhere_in_the_settings() -> None:
    settings = GatewaySettings.model_validate({"auth": {"inference_keys": ONE, "keys": [{"name": "b", "key": TWO}]}})
    for text in (repr(settings), settings.model_dump_json(), repr(pickle.dumps(settings))):
        assert ONE not in text
        assert TWO not in text


@pytest.mark.parametrize(
    "auth",
    [
        {"inference_keys": "short"},
        {"inference_keys": f"{ONE},{ONE}"},
        {"inference_keys": ONE, "keys": [{"name": "same", "key": ONE}]},
        {"keys": [{"name": "a", "key": ONE}, {"name": "a", "key": TWO}]},
        {"keys": [{"name": "a", "sha256": "xyz"}]},
        {"keys": [{"name": "a"}]},
        {"keys": [{"name": "a b", "key": ONE}]},
        {"keys": [{"name": "a", "key": ONE, "kind": "root"}]},
        {"keys": [{"name": "a", "key": ONE, "limits": {"requests_per_minute": 0}}]},
        {"keys": [{"name": "a", "key": 1234567890123456}]},
        {"keys": [{"name": "a", "kye": ONE}]},
        {"keys": [ONE]},
        {"keys": [{"name": "a", "key": ONE, "kind": "management", "instances": ["demo"]}]},
        {"keys_file": "/nothing"},
    ],
)
def test_mistakes_are_refused_without_repeating_a_key(auth: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        GatewaySettings.model_validate({"auth": auth})
    assert ONE not in str(caught.value)


def test_keys_come_out_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"- {{name: team-a, sha256: {digest(ONE)}, limits: {{tokens_per_minute: 5}}}}\n")
    auth = AuthSettings.model_validate({"keys_file": str(path)})
    assert auth.keys == (Key(name="team-a", sha256=digest(ONE), limits=KeyLimits(tokens_per_minute=5)),)


def test_variables_are_expanded_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the key would be the name of the variable, which anybody may know."""
    monkeypatch.setenv("TEAM_A_KEY", f" {ONE}\n")
    path = tmp_path / "keys.yaml"
    path.write_text("- {name: team-a, key: '${TEAM_A_KEY}'}\n")
    assert AuthSettings.model_validate({"keys_file": str(path)}).keys[0].sha256 == digest(ONE)


def test_a_file_that_is_no_yaml_is_refused_without_repeating_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(f"- name: a\n  key: {ONE}: oops\n")
    with pytest.raises(ValidationError, match="not YAML") as caught:
        GatewaySettings.model_validate({"auth": {"keys_file": str(path)}})
    assert ONE not in "".join(traceback.format_exception(caught.value))


def test_a_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text("name: a")
    with pytest.raises(ValidationError, match="must be a list"):
        AuthSettings.model_validate({"keys_file": str(path)})


def test_a_variable_gives_keys_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYS", raising=False)
    auth = {"auth": {"inference_keys": "${KEYS:-}"}}
    assert not GatewaySettings.model_validate(auth).auth.keys
    monkeypatch.setenv("KEYS", ONE)
    assert GatewaySettings.model_validate(auth).auth.has("inference")


def test_default_limits_hold_for_inference_keys_without_their_own() -> None:
    auth = AuthSettings.model_validate(
        {
            "inference_keys": ONE,
            "management_keys": "m" * 16,
            "keys": [{"name": "own", "key": TWO, "limits": {}}],
            "default_limits": {"requests_per_minute": 5},
        }
    )
    limits = {key.name: auth.limits_of(key).requests_per_minute for key in auth.keys}
    assert limits == {"inference-1": 5, "management-1": None, "own": None}
    assert auth.has_limits()
    assert not AuthSettings.model_validate({"inference_keys": ONE}).has_limits()


def test_default_limits_alone_are_limits_for_stored_keys_may_come() -> None:
    assert AuthSettings.model_validate({"default_limits": {"requests_per_minute": 5}}).has_limits()


def test_a_key_can_be_held_to_models_and_to_a_time() -> None:
    auth = AuthSettings.model_validate(
        {"keys": [{"name": "a", "key": ONE, "instances": ["demo"], "expires_at_s": 100}]}
    )
    assert auth.keys[0].instances == frozenset({"demo"})
    assert [auth.keys[0].is_expired(now_s) for now_s in (99.9, 100.0)] == [False, True]
