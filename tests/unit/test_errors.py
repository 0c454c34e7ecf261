import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from deployments import errors
from deployments.errors import AccessDeniedError, AuthenticationError, InternalError, ServingError
from deployments.ingress.middleware.errors import error_response


def tree(kind: type[ServingError] = ServingError) -> Iterator[type[ServingError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__.startswith("deployments."):  # Ray makes others, when it hands one of ours over
            yield from tree(child)


def example(kind: type[ServingError]) -> ServingError:
    return InternalError() if issubclass(kind, InternalError) else kind("The words.", "field", 7)


EXAMPLES = [example(kind) for kind in tree()]
each_error = pytest.mark.parametrize("error", EXAMPLES, ids=[type(error).__name__ for error in EXAMPLES])


def body_of(path: str, error: ServingError) -> Any:
    return json.loads(bytes(error_response(path, error).body))


@each_error
def test_survives_pickling(error: ServingError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.message, copy.param, copy.retry_after_s) == (error.message, error.param, error.retry_after_s)
    assert str(copy) == error.message
    assert copy.to_body() == error.to_body()


@each_error
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/tokenize", "/nowhere", "/apiary"])
def test_openai_body(error: ServingError, path: str) -> None:
    expected = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    assert body_of(path, error) == {"error": expected}


@each_error
def test_body_of_api_v1(error: ServingError) -> None:
    if isinstance(error, AuthenticationError | AccessDeniedError):
        assert body_of("/api/v1/instances", error) == error.to_body()  # API.md: one shape for keys, everywhere
        return
    assert body_of("/api/v1/instances", error) == {"error": error.code or error.type, "details": error.message}


@each_error
def test_body_of_api(error: ServingError) -> None:
    if isinstance(error, AuthenticationError | AccessDeniedError):
        assert body_of("/api/highlights", error) == error.to_body()
        return
    assert body_of("/api/highlights", error) == {"detail": error.message}


@each_error
@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/instances", "/api/highlights"])
def test_response_has_status_type_and_retry_after(error: ServingError, path: str) -> None:
    response = error_response(path, error)
    assert response.status_code == error.status
    assert response.headers["content-type"] == "application/json"
    assert response.headers.get("retry-after") == (None if error.retry_after_s is None else str(error.retry_after_s))


@pytest.mark.parametrize(
    ("kind", "status", "type_", "code"),
    [
        (errors.ServingError, 500, "server_error", None),
        (errors.InternalError, 500, "server_error", None),
        (errors.InvalidRequestError, 400, "invalid_request_error", None),
        (errors.NotFoundError, 404, "not_found_error", None),
        (errors.ModelNotFoundError, 404, "not_found_error", "model_not_found"),
        (errors.MethodNotAllowedError, 405, "invalid_request_error", None),
        (errors.PayloadTooLargeError, 413, "invalid_request_error", None),
        (errors.OverloadedError, 429, "overloaded_error", None),
        (errors.EngineUnavailableError, 503, "server_error", "engine_unavailable"),
    ],
)
def test_what_clients_branch_on(kind: type[ServingError], status: int, type_: str, code: str | None) -> None:
    assert (kind.status, kind.type, kind.code) == (status, type_, code)


def test_internal_error_says_nothing_of_its_cause() -> None:
    with pytest.raises(InternalError) as caught:
        raise InternalError from ValueError("secret")
    assert "secret" not in json.dumps(caught.value.to_body())
