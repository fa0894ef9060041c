"""The only mapping of gRPC statuses to GatewayErrors.

Triton uses one status code for many different failures, so its messages are read too. Texts of INTERNAL errors hold
tracebacks and paths: they go to the log, never to the caller.
"""

from __future__ import annotations

import re

import grpc

from app.errors import (
    BY_CODE,
    BackendError,
    BackendUnavailableError,
    BatchFailedError,
    BodyTooLargeError,
    DeadlineExceededError,
    GatewayError,
    InvalidTensorError,
    ModelNotReadyError,
    OverloadedError,
    RestrictedError,
    UnsupportedError,
)

REFUSAL = re.compile(r"(?P<code>[a-z_]+)@(?P<step>[a-z_]+): (?P<sentence>[^\n]*)")
DEAD_STEP = "is not healthy"
RESTRICTED = "This protocol is restricted"
# Triton names the instance of the step that failed, in two ways; the instance is its model and one or two numbers.
INSTANCE = re.compile(r"(?:model(?: instance)?|Stub process) '(?P<model>[^']+?)(?:_\d+){1,2}'")
Code = grpc.StatusCode


def is_dead_step(details: str) -> bool:
    """Return whether the message proves that a Python step's process has died."""
    return DEAD_STEP in details


def gateway_error(code: grpc.StatusCode, details: str, model: str) -> GatewayError:
    """Return the error for a failed call of `model`."""
    refusal = REFUSAL.search(details) if code is Code.INVALID_ARGUMENT else None
    if refusal is not None and refusal["code"] in BY_CODE:
        return _refused(BY_CODE[refusal["code"]], refusal["step"], refusal["sentence"], model)
    if code is Code.UNAVAILABLE:
        return _unavailable(details, model)
    if code is Code.INTERNAL and is_dead_step(details):
        sentence = "A step of the model has died and is being repaired."
        return ModelNotReadyError(sentence, model=model, step=_step(details, model))
    if code is Code.RESOURCE_EXHAUSTED and "Sent message" in details:
        return BackendError("The model's answer is larger than Triton may send.", model=model)
    kind, sentence = _TABLE.get(code, (BackendError, "The model failed on this request."))
    return kind(sentence, model=model, step=_step(details, model))


def _step(details: str, model: str) -> str | None:
    """Return the step of the ensemble that a message names; None when it names none."""
    found = INSTANCE.search(details)
    is_step = found is not None and found["model"].startswith(f"{model}_")
    return found["model"].removeprefix(f"{model}_") if found is not None and is_step else None


def _refused(kind: type[GatewayError], step: str, sentence: str, model: str) -> GatewayError:
    if kind is BackendError:
        sentence = "A step of the model failed on this item."
    return kind(sentence, model=model, step=step)


def _unavailable(details: str, model: str) -> GatewayError:
    if "maximum queue size" in details:
        return OverloadedError("The model's queue is full.", model=model)
    if "timeout expired" in details:
        return DeadlineExceededError("The request waited too long in the model's queue.", model=model)
    if "not ready" in details or "is not available" in details:
        return ModelNotReadyError("The model is not ready.", model=model)
    if RESTRICTED in details:
        return RestrictedError("Triton demands a control key: TRITON_CONTROL_KEY_FILE must name its file.", model=model)
    return BackendUnavailableError("Triton cannot be reached or is stopping.", model=model)


_TABLE: dict[grpc.StatusCode, tuple[type[GatewayError], str]] = {
    # Only models of the catalogue are called, so a model that Triton does not know has just vanished.
    Code.NOT_FOUND: (ModelNotReadyError, "The model was served a moment ago and is not ready now."),
    Code.INVALID_ARGUMENT: (InvalidTensorError, "The model does not accept this request."),
    Code.DEADLINE_EXCEEDED: (DeadlineExceededError, "The model did not answer within the request's deadline."),
    Code.RESOURCE_EXHAUSTED: (BodyTooLargeError, "The request is larger than Triton accepts."),
    Code.CANCELLED: (BackendUnavailableError, "The call was cancelled."),
    Code.UNIMPLEMENTED: (UnsupportedError, "The model cannot be called by this protocol."),
    # NVIDIA's backends answer so to every request of a batch in which one item breaks the network.
    Code.INTERNAL: (BatchFailedError, "A step of the model failed on this request."),
    Code.UNKNOWN: (BackendError, "The model failed on this request."),
}
