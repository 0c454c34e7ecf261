import pickle

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayTaskError, TaskCancelledError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from deployments.errors import EngineUnavailableError, InternalError, OverloadedError, ServingError
from deployments.ray_errors import to_serving_error
from tests.unit.test_errors import each_error


def crossed(cause: Exception) -> RayTaskError:
    """Return an error as it stands after a replica has raised it and Ray has brought it here."""
    return RayTaskError("stream_http", "traceback", cause, "title", 1, "127.0.0.1")


@each_error
def test_our_errors_come_back_unchanged(error: ServingError) -> None:
    assert to_serving_error(error) is error
    assert to_serving_error(crossed(error)) is error


@each_error
def test_our_errors_survive_the_way_through_ray(error: ServingError) -> None:
    arrived = pickle.loads(pickle.dumps(crossed(error))).as_instanceof_cause()
    translated = to_serving_error(arrived)
    assert type(translated) is type(error)
    assert translated.to_body() == error.to_body()
    assert translated.retry_after_s == error.retry_after_s


def test_a_full_queue_is_429_with_retry_after() -> None:
    translated = to_serving_error(BackPressureError(num_queued_requests=3, max_queued_requests=2))
    assert type(translated) is OverloadedError
    assert translated.retry_after_s


@pytest.mark.parametrize(
    "error",
    [
        RayActorError(),
        ActorDiedError(),
        ActorUnavailableError("gone", None),
        TaskCancelledError(),
        DeploymentUnavailableError(DeploymentID("Engine", "model-demo")),
        RayServeException("Application model-demo does not exist"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_engine_is_503_with_retry_after(error: Exception) -> None:
    translated = to_serving_error(error)
    assert type(translated) is EngineUnavailableError
    assert translated.retry_after_s
    assert "model-demo" not in translated.message


@pytest.mark.parametrize("error", [ValueError("secret"), crossed(ValueError("secret"))], ids=["local", "crossed"])
def test_anything_else_is_a_500_that_says_nothing(error: Exception) -> None:
    translated = to_serving_error(error)
    assert type(translated) is InternalError
    assert "secret" not in translated.message
