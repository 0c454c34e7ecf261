import pytest
import ray

from deployments.access import is_loopback
from deployments.exposure import OPEN_DASHBOARD, is_http_on_loopback, is_open, require_closed_dashboard


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "fd00::2", "example.com", "", None, "*"])
def test_not_loopback(host: str | None) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("address", "mode", "expected"),
    [
        ("10.0.0.2:8265", "", True),
        ("10.0.0.2:8265", "disabled", True),
        ("[fd00::2]:8265", "", True),
        ("10.0.0.2:8265", "token", False),
        ("10.0.0.2:8265", "TOKEN", False),
        ("127.0.0.1:8265", "", False),
        ("[::1]:8265", "disabled", False),
        ("localhost:8265", "", False),
    ],
)
def test_a_dashboard_is_open_when_strangers_reach_it_without_a_token(address: str, mode: str, expected: bool) -> None:
    assert is_open(address, mode) is expected


def test_the_refusal_names_the_ways_out() -> None:
    text = OPEN_DASHBOARD.format(address="10.0.0.2:8265")
    for words in (
        "10.0.0.2:8265",
        "RAY_AUTH_MODE=token",
        "ray get-auth-token --generate",
        "--dashboard-host=127.0.0.1",
        "allow_open_dashboard: true",
    ):
        assert words in text


def test_nothing_is_refused_without_a_cluster() -> None:
    require_closed_dashboard(allow_open=False)
    assert is_http_on_loopback()
    assert not ray.is_initialized()
