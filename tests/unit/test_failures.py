import json

from deployments.engine.failures import restated
from deployments.errors import InternalError, InvalidRequestError

BODY = json.dumps({"error": {"message": "'str' object has no attribute 'get'", "code": 500}}).encode()


def test_a_body_that_vllm_could_not_read_is_the_clients_fault() -> None:
    error = restated(BODY, has_reached_engine=False)
    assert isinstance(error, InvalidRequestError)
    assert "no attribute 'get'" in error.message


def test_what_broke_in_the_engine_says_nothing() -> None:
    error = restated(BODY, has_reached_engine=True)
    assert isinstance(error, InternalError)
    assert "attribute" not in error.message


def test_any_body_will_do() -> None:
    for body in (b"", b"Internal Server Error", b"[]", b'{"error": "text"}', b"\xff"):
        assert isinstance(restated(body, has_reached_engine=False), InvalidRequestError)
