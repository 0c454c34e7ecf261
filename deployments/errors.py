"""The error tree: the class is the status, and every error survives pickling.

    client --(1)--> Ingress --(2)--> Engine replica --(3)--> engine core

(1) AuthenticationError, InvalidRequestError, PayloadTooLargeError, RateLimitedError, ModelNotFoundError, ...: raised in
    the ingress, nothing is sent on.
(2) OverloadedError, EngineUnavailableError: Ray's own errors, translated in `ray_errors.py` and nowhere else;
    DeadlineExceededError: raised in the ingress when the answer is late.
(3) vLLM answers its clients itself (400, 404, ...); a dead engine core becomes EngineUnavailableError in the replica.
"""

from typing import Any, ClassVar


class ServingError(Exception):
    """An error a client may read. Subclasses set the status and the `/v1` body's fields."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None

    def __init__(self, message: str, param: str | None = None, retry_after_s: int | None = None) -> None:
        # Everything positional: an exception with keyword-only arguments does not unpickle.
        super().__init__(message, param, retry_after_s)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message

    def to_body(self) -> dict[str, Any]:
        """Return the OpenAI error body."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InternalError(ServingError):
    """Something broke; the text is fixed, the traceback is in the log under the request id."""

    def __init__(self) -> None:
        super().__init__("The server had an error while processing your request. Its log has the details.")

    def __reduce__(self) -> tuple[type["InternalError"], tuple[()]]:
        return type(self), ()


class InvalidRequestError(ServingError):
    status = 400
    type = "invalid_request_error"


class ContextLengthError(InvalidRequestError):
    code = "context_length_exceeded"


class AuthenticationError(ServingError):
    """No key, or one that nobody has."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class AccessDeniedError(ServingError):
    """A key of the wrong kind, or a web page that may not call."""

    status = 403
    type = "permission_error"


class NotFoundError(ServingError):
    status = 404
    type = "not_found_error"


class ModelNotFoundError(NotFoundError):
    code = "model_not_found"


class MethodNotAllowedError(ServingError):
    status = 405
    type = "invalid_request_error"


class SlowBodyError(ServingError):
    """The body did not arrive in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class PayloadTooLargeError(ServingError):
    status = 413
    type = "invalid_request_error"


class UnprocessableError(ServingError):
    """A field of the wrong type, or outside its range, where the routes' clients expect 422."""

    status = 422
    type = "invalid_request_error"


class OverloadedError(ServingError):
    status = 429
    type = "overloaded_error"


class RateLimitedError(ServingError):
    """A key has used what it may use."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class EngineUnavailableError(ServingError):
    status = 503
    type = "server_error"
    code = "engine_unavailable"


class CompilerUnavailableError(ServingError):
    """Nobody can compile a constraint now; requests without one are served."""

    status = 503
    type = "server_error"
    code = "compiler_unavailable"


class DeadlineExceededError(ServingError):
    """A request took longer than its deadlines allow."""

    status = 504
    type = "server_error"
    code = "deadline_exceeded"


class InvalidNameError(InvalidRequestError):
    """An instance cannot be called so."""

    code = "invalid_instance_name"


class InvalidOptionsError(InvalidRequestError):
    """A body of the management routes, or an option in it."""

    code = "invalid_request"


class InvalidParameterError(InvalidRequestError):
    """A query parameter of the management routes."""

    code = "invalid_parameter"


class EmptyCommandError(InvalidRequestError):
    code = "invalid_command"


class CommandError(InvalidRequestError):
    """A command line that is not one of vLLM's, or has a value that vLLM refuses."""

    code = "parse_error"


class InstanceNotFoundError(NotFoundError):
    code = "invalid_instance"


class KeyNotFoundError(NotFoundError):
    code = "invalid_key"


class ConflictError(ServingError):
    """What is asked for does not go with the state of things."""

    status = 409
    type = "conflict_error"
    code = "conflict"


class InstanceExistsError(ConflictError):
    code = "instance_exists"


class InstanceRunningError(ConflictError):
    code = "instance_running"


class InstanceDeclaredError(ConflictError):
    """An instance of the YAML: the API does not change it."""

    code = "instance_declared"


class MaxInstancesError(ConflictError):
    code = "max_instances_reached"


class InsufficientResourcesError(ConflictError):
    """The cluster does not have what an instance needs, however long one waits."""

    code = "insufficient_resources"


class NoRoomError(EngineUnavailableError):
    """The cluster has what an instance needs, but others have it now."""

    code = "no_room"


class AbandonedError(EngineUnavailableError):
    """The model went away before one of its replicas answered a request, or had it."""


class StartFailedError(ServingError):
    """An instance did not become ready; the message says why."""

    code = "start_failed"


class InstanceNotRunningError(EngineUnavailableError):
    code = "instance_not_running"


class InstanceStoppingError(EngineUnavailableError):
    code = "instance_shutting_down"
