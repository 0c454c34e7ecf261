from pathlib import Path

import pytest

from config.auth import digest
from config.models import GatewaySettings
from deployments.errors import InvalidRequestError
from deployments.management_key import FILE, stored_hash, with_management_key


def test_a_key_that_is_configured_is_the_only_one(tmp_path: Path) -> None:
    settings = GatewaySettings.model_validate({"auth": {"management_keys": "m" * 16}, "data_dir": str(tmp_path / "d")})
    assert with_management_key(settings) == settings
    assert not (tmp_path / "d").exists()


def test_a_key_is_made_once(tmp_path: Path) -> None:
    sha256, made = stored_hash(tmp_path / "d")
    assert made is not None
    assert digest(made) == sha256
    assert stored_hash(tmp_path / "d") == (sha256, None)
    assert [path.name for path in (tmp_path / "d").iterdir()] == [FILE]


def test_only_its_owner_reads_what_is_kept(tmp_path: Path) -> None:
    stored_hash(tmp_path / "d")
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "d" / FILE).stat().st_mode & 0o777 == 0o600


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequestError, match="VLLM_GRAPH_MANAGEMENT_KEYS"):
        with_management_key(GatewaySettings(data_dir=str(tmp_path / "file" / "d")))


def test_nobody_else_has_the_name_of_the_generated_key(tmp_path: Path) -> None:
    """It would share its counts, and its lack of limits."""
    auth = {"keys": [{"name": "generated", "key": "k" * 16, "limits": {"requests_per_minute": 1}}]}
    with pytest.raises(InvalidRequestError, match="generated"):
        with_management_key(GatewaySettings.model_validate({"auth": auth, "data_dir": str(tmp_path)}))
