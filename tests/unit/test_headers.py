import pytest

from deployments.ingress.middleware.headers import engine_headers


def test_what_the_engine_understands_goes_on_in_order() -> None:
    headers = [(b"content-type", b"application/json"), (b"x-request-id", b"r"), (b"traceparent", b"00-1-2-01")]
    assert engine_headers(headers) == tuple(headers)


@pytest.mark.parametrize(
    "name",
    [b"authorization", b"cookie", b"x-api-key", b"host", b"content-length", b"serve_multiplexed_model_id", b"x-other"],
)
def test_keys_cookies_and_control_headers_stay_outside(name: bytes) -> None:
    assert engine_headers([(name, b"secret"), (b"accept", b"*/*")]) == ((b"accept", b"*/*"),)
