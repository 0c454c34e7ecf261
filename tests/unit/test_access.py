import pytest

from config.auth import AuthSettings
from deployments.access import is_loopback, require_keys
from deployments.errors import InvalidRequestError

KEYS = AuthSettings.model_validate({"inference_keys": "k" * 16})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("", False),
        (None, False),
    ],
)
def test_is_loopback(host: str | None, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_a_server_without_keys_is_for_this_machine_only() -> None:
    require_keys(AuthSettings(), is_on_loopback=True)
    require_keys(KEYS, is_on_loopback=False)
    require_keys(AuthSettings(allow_open=True), is_on_loopback=False)
    management_only = AuthSettings.model_validate({"management_keys": "k" * 16})
    for auth in (AuthSettings(), management_only):
        with pytest.raises(InvalidRequestError, match="VLLM_GRAPH_INFERENCE_KEYS"):
            require_keys(auth, is_on_loopback=False)
