import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.auth_token import MODE, TOKEN, TOKEN_PATH, AuthToken


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of a user who has no token."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def fresh() -> Iterator[AuthToken]:
    token = AuthToken({})
    token.save()
    yield token
    token.remove()


def headers_of(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


def test_a_token_is_made_when_there_is_none(fresh: AuthToken) -> None:
    path = Path(fresh.place)
    assert fresh.environment == {MODE: "token", TOKEN_PATH: str(path)}
    assert len(path.read_text()) >= 64
    assert fresh.headers == headers_of(path.read_text())
    fresh.remove()
    assert not path.exists()
    fresh.remove()


def test_only_its_owner_reads_it_and_no_environment_has_it(fresh: AuthToken) -> None:
    path = Path(fresh.place)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() not in fresh.environment.values()


def test_every_token_is_another(fresh: AuthToken) -> None:
    other = AuthToken({})
    other.save()
    assert other.headers != fresh.headers
    other.remove()


def test_nothing_is_made_before_it_is_saved() -> None:
    token = AuthToken({})
    assert (token.environment, token.headers, token.place) == ({MODE: "token"}, {}, "")


def test_the_users_tokens_are_taken_in_rays_order(home: Path) -> None:
    default = home / ".ray" / "auth_token"
    default.parent.mkdir()
    default.write_text("at home\n")
    named = home / "named"
    named.write_text("named\n")
    for settings, value, place in [
        ({TOKEN: "direct", TOKEN_PATH: str(named)}, "direct", f"your {TOKEN}"),
        ({TOKEN_PATH: str(named), MODE: "token"}, "named", str(named)),
        ({}, "at home", str(default)),
    ]:
        token = AuthToken(settings)
        token.save()
        assert (token.headers, token.place) == (headers_of(value), place)
        assert token.environment == {MODE: "token"}
        token.remove()
    assert default.exists()
    assert named.exists()


@pytest.mark.parametrize("mode", ["disabled", "Disabled"])
def test_the_user_may_turn_it_off(mode: str) -> None:
    token = AuthToken({MODE: mode, TOKEN: "direct"})
    token.save()
    assert not token.is_on
    assert (token.environment, token.headers) == ({}, {})


def test_a_named_file_that_is_no_token_is_refused(home: Path) -> None:
    with pytest.raises(ValueError, match=TOKEN_PATH):
        AuthToken({TOKEN_PATH: str(home / "nothing")})
    (home / "empty").write_text("\n")
    with pytest.raises(ValueError, match="empty"):
        AuthToken({TOKEN_PATH: str(home / "empty")})
