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
        retry_after_s: seconds to wait before the next try; measured where possible.

    """

    status: int
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
    """The body or a header is not in the format that it declares."""

    status, code, title = 400, "malformed_request", "Malformed request"


class ForbiddenError(GatewayError):
    """The host name or the web page's origin is not allowed."""

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
    """The route offers none of the media types in `Accept`."""

    status, code, title = 406, "not_acceptable", "Not acceptable"


class RequestBodyTimeoutError(GatewayError):
    """The body did not arrive in time."""

    status, code, title, retryable = 408, "request_body_timeout", "Request body timeout", True


class BodyTooLargeError(GatewayError):
    """The image or body has too many bytes, or the JSON has too many elements or is nested too deep."""

    status, code, title = 413, "body_too_large", "Body too large"


class ImageTooLargeError(GatewayError):
    """The image has too many pixels, scans or metadata, or decoding it takes too much CPU time or memory."""

    status, code, title = 413, "image_too_large", "Image too large"


class BatchTooLargeError(GatewayError):
    """The batch has too many items."""

    status, code, title = 413, "batch_too_large", "Batch too large"


class UnsupportedMediaTypeError(GatewayError):
    """The route does not accept this content type or content encoding."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class InvalidParameterError(GatewayError):
    """A query option or header is unknown or out of bounds."""

    status, code, title = 422, "invalid_parameter", "Invalid parameter"


class ImageUndecodableError(GatewayError):
    """The bytes cannot be decoded as an image."""

    status, code, title = 422, "image_undecodable", "Image undecodable"


class TextEmptyError(GatewayError):
    """The text has no visible character."""

    status, code, title = 422, "text_empty", "Text empty"


class InvalidTensorError(GatewayError):
    """The model does not accept the name, shape or type of a tensor."""

    status, code, title = 422, "invalid_tensor", "Invalid tensor"


class OverloadedError(GatewayError):
    """The queue or the memory for request bodies is full."""

    status, code, title, retryable, retry_after_s = 429, "overloaded", "Overloaded", True, 1


class InternalError(GatewayError):
    """The gateway has a bug; input never causes this."""

    status, code, title = 500, "internal_error", "Internal error"


class UnsupportedError(GatewayError):
    """The model cannot be called by this protocol."""

    status, code, title = 501, "unsupported", "Unsupported"


class BackendError(GatewayError):
    """A step of the model failed."""

    status, code, title = 502, "backend_error", "Backend error"


class BatchFailedError(BackendError):
    """A step failed on all items that Triton had batched; another caller's item may be at fault."""


class BackendUnavailableError(GatewayError):
    """Triton cannot be reached or is stopping."""

    status, code, title, retryable, retry_after_s = 503, "backend_unavailable", "Backend unavailable", True, 1


class RestrictedError(BackendUnavailableError):
    """Triton asks for a key that the gateway does not have."""


class ModelNotReadyError(GatewayError):
    """The model was served a moment ago; it is being loaded or repaired now."""

    status, code, title, retryable, retry_after_s = 503, "model_not_ready", "Model not ready", True, 2


class DrainingError(GatewayError):
    """The gateway is stopping and accepts no new requests."""

    status, code, title, retryable, retry_after_s = 503, "draining", "Draining", True, 1


class DeadlineExceededError(GatewayError):
    """The answer did not arrive within the request's deadline."""

    status, code, title, retryable = 504, "deadline_exceeded", "Deadline exceeded", True


ERRORS: tuple[type[GatewayError], ...] = tuple(GatewayError.__subclasses__())
BY_CODE: dict[str, type[GatewayError]] = {error.code: error for error in ERRORS}
BY_STATUS: dict[int, type[GatewayError]] = {error.status: error for error in reversed(ERRORS)}
"""The first class of each status, which is the most general one."""
