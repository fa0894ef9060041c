"""Every way in which a request can fail.

A failure is raised where it is found as one of these, carried up untouched, and shown once by `app.http.problems`. Each
class is one row of the table of problem codes; codes are part of the HTTP contract and never change.

GatewayError
├── 4xx  MalformedRequest, Forbidden, NotFound, ModelNotFound, VersionNotFound, MethodNotAllowed, NotAcceptable,
│        RequestBodyTimeout, BodyTooLarge, ImageTooLarge, BatchTooLarge, UnsupportedMediaType, InvalidParameter,
│        ImageUndecodable, TextEmpty, InvalidTensor, Overloaded
└── 5xx  InternalError, Unsupported, BackendError, BackendUnavailable, ModelNotReady, Draining, DeadlineExceeded
"""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """A request that got no result.

    Attributes:
        detail: one sentence for the person who sent the request; never a path or a traceback.
        model: the model that was asked, where known.
        step: the step of the model's ensemble that refused or failed, where known.
        retry_after_s: when to come back, in seconds; measured where it can be.

    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    retryable: ClassVar[bool] = False
    retry_after_s: int | None = None

    def __init__(
        self, detail: str, *, model: str | None = None, step: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.model = model
        self.step = step
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class MalformedRequestError(GatewayError):
    """The body or a header cannot be read as what it claims to be."""

    status, code, title = 400, "malformed_request", "Malformed request"


class ForbiddenError(GatewayError):
    """A host name by which the gateway is not called, or a web page of a foreign origin."""

    status, code, title = 403, "forbidden", "Forbidden"


class NotFoundError(GatewayError):
    """No such route."""

    status, code, title = 404, "not_found", "Not found"


class ModelNotFoundError(GatewayError):
    """No model of that name serves the task."""

    status, code, title = 404, "model_not_found", "Model not found"


class VersionNotFoundError(GatewayError):
    """The model has no such version."""

    status, code, title = 404, "version_not_found", "Version not found"


class MethodNotAllowedError(GatewayError):
    """The route exists, but not for this method."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"


class NotAcceptableError(GatewayError):
    """None of the media types in `Accept` can be given."""

    status, code, title = 406, "not_acceptable", "Not acceptable"


class RequestBodyTimeoutError(GatewayError):
    """The body did not arrive in time."""

    status, code, title, retryable = 408, "request_body_timeout", "Request body timeout", True


class BodyTooLargeError(GatewayError):
    """More bytes than an image or a request may have, or JSON of too many elements or too deep."""

    status, code, title = 413, "body_too_large", "Body too large"


class ImageTooLargeError(GatewayError):
    """More pixels, scans or metadata than an image may have, or more CPU time or memory to decode than one gets."""

    status, code, title = 413, "image_too_large", "Image too large"


class BatchTooLargeError(GatewayError):
    """More items than a batch may have."""

    status, code, title = 413, "batch_too_large", "Batch too large"


class UnsupportedMediaTypeError(GatewayError):
    """A content type or encoding that the route does not take."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class InvalidParameterError(GatewayError):
    """A query option or header that is unknown or out of bounds."""

    status, code, title = 422, "invalid_parameter", "Invalid parameter"


class ImageUndecodableError(GatewayError):
    """Bytes that are no image which can be decoded."""

    status, code, title = 422, "image_undecodable", "Image undecodable"


class TextEmptyError(GatewayError):
    """A text without a single visible character."""

    status, code, title = 422, "text_empty", "Text empty"


class InvalidTensorError(GatewayError):
    """A tensor whose name, shape or type the model does not take."""

    status, code, title = 422, "invalid_tensor", "Invalid tensor"


class OverloadedError(GatewayError):
    """The queue, or the room for request bodies, is full."""

    status, code, title, retryable, retry_after_s = 429, "overloaded", "Overloaded", True, 1


class InternalError(GatewayError):
    """A fault of the gateway's own, never caused by input."""

    status, code, title = 500, "internal_error", "Internal error"


class UnsupportedError(GatewayError):
    """A model that cannot be called by this protocol."""

    status, code, title = 501, "unsupported", "Unsupported"


class BackendError(GatewayError):
    """A step of the model failed."""

    status, code, title = 502, "backend_error", "Backend error"


class BackendUnavailableError(GatewayError):
    """Triton cannot be reached, or is stopping."""

    status, code, title, retryable, retry_after_s = 503, "backend_unavailable", "Backend unavailable", True, 1


class RestrictedError(BackendUnavailableError):
    """Triton answers, and wants a key that the gateway does not have."""


class ModelNotReadyError(GatewayError):
    """A model that was served a moment ago and is being loaded or repaired."""

    status, code, title, retryable, retry_after_s = 503, "model_not_ready", "Model not ready", True, 2


class DrainingError(GatewayError):
    """The gateway is stopping and takes no new work."""

    status, code, title, retryable, retry_after_s = 503, "draining", "Draining", True, 1


class DeadlineExceededError(GatewayError):
    """The answer did not arrive within the request's deadline."""

    status, code, title, retryable = 504, "deadline_exceeded", "Deadline exceeded", True


ERRORS: tuple[type[GatewayError], ...] = tuple(GatewayError.__subclasses__())
BY_CODE: dict[str, type[GatewayError]] = {error.code: error for error in ERRORS}
