"""Ray's errors, and those that crossed it, as ours. The only place that knows them."""

from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from deployments.errors import EngineUnavailableError, InternalError, OverloadedError, ServingError

RETRY_AFTER_S = 1

REPLICA_LOST = (ActorDiedError, ActorUnavailableError, RayActorError)
"""Errors after which another replica may answer what this one has not begun to."""


def to_serving_error(error: BaseException) -> ServingError:
    """Translate what a handle raised.

    Our own errors come back unchanged, also from inside a RayTaskError; a full queue is 429; a lost, deleted or
    restarting deployment is 503; everything else is a 500 that says nothing.
    """
    if isinstance(error, RayTaskError) and isinstance(error.cause, ServingError):
        return error.cause
    if isinstance(error, ServingError):
        return error
    if isinstance(error, BackPressureError):
        return OverloadedError("Too many requests are waiting for this model. Retry later.", None, RETRY_AFTER_S)
    if isinstance(error, (*REPLICA_LOST, DeploymentUnavailableError, TaskCancelledError)):
        return EngineUnavailableError("The engine that served this request was lost. Retry.", None, RETRY_AFTER_S)
    if isinstance(error, RayServeException):
        return EngineUnavailableError("The model cannot be reached right now. Retry later.", None, RETRY_AFTER_S)
    return InternalError()
