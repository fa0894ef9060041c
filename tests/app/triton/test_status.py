"""gRPC status and message -> problem, by one table."""

from __future__ import annotations

import grpc
import pytest

from app.errors import BY_CODE, RestrictedError
from app.triton.status import gateway_error, is_dead_step

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "status", "problem"),
    [
        (Code.NOT_FOUND, "Request for unknown model: 'x' is not found", 503, "model_not_ready"),
        (Code.UNAVAILABLE, "failed to connect to all addresses; last error: Connection refused", 503,
         "backend_unavailable"),
        (Code.UNAVAILABLE, "Server is stopping, scheduler for model has stopped", 503, "backend_unavailable"),
        (Code.UNAVAILABLE, "Stream removed", 503, "backend_unavailable"),
        (Code.UNAVAILABLE, "This protocol is restricted, expecting header 'x'", 503, "backend_unavailable"),
        (Code.UNAVAILABLE, "in ensemble 'x', Exceeds maximum queue size", 429, "overloaded"),
        (Code.UNAVAILABLE, "Request timeout expired", 504, "deadline_exceeded"),
        (Code.UNAVAILABLE, "Request for unknown model: 'x' is not ready", 503, "model_not_ready"),
        (Code.INVALID_ARGUMENT, "unexpected shape for input 'text'", 422, "invalid_tensor"),
        (Code.INVALID_ARGUMENT, "in ensemble 'x', image_undecodable@preprocess: Cut off.", 422, "image_undecodable"),
        (Code.INVALID_ARGUMENT, "backend_error@network: /secret/path", 502, "backend_error"),
        (Code.INTERNAL, "Failed to process the request: Traceback", 502, "backend_error"),
        (Code.INTERNAL, "Stub process 'x_0' is not healthy.", 503, "model_not_ready"),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", 504, "deadline_exceeded"),
        (Code.RESOURCE_EXHAUSTED, "Received message larger than max", 413, "body_too_large"),
        (Code.RESOURCE_EXHAUSTED, "Sent message larger than max", 502, "backend_error"),
        (Code.CANCELLED, "Cancelled on the server side", 503, "backend_unavailable"),
        (Code.UNIMPLEMENTED, "ModelInfer RPC doesn't support models with decoupled", 501, "unsupported"),
        (Code.UNKNOWN, "x", 502, "backend_error"),
        (Code.PERMISSION_DENIED, "x", 502, "backend_error"),
    ],
)  # fmt: skip
def test_every_case_has_its_problem(code: grpc.StatusCode, details: str, status: int, problem: str) -> None:
    """Triton's recorded messages become the codes of the contract, without a path or traceback."""
    error = gateway_error(code, details, "x")
    assert (error.status, error.code, error.model) == (status, problem, "x")
    assert "/secret" not in error.detail
    assert "Traceback" not in error.detail


def test_every_grpc_status_is_mapped_to_a_known_problem() -> None:
    """Whatever status gRPC knows, the caller gets a code of the table."""
    for code in Code:
        assert gateway_error(code, "", "x").code in BY_CODE


def test_a_missing_key_is_not_a_server_that_is_down() -> None:
    """The status is that of an unreachable server; the sentence says how to fix it."""
    error = gateway_error(Code.UNAVAILABLE, "This protocol is restricted, expecting header 'x'", "x")
    assert isinstance(error, RestrictedError)
    assert "TRITON_CONTROL_KEY_FILE" in error.detail


def test_a_refusal_names_its_step_and_sentence() -> None:
    """A step's sentence about an item reaches the caller, the ensemble's prefix does not."""
    error = gateway_error(Code.INVALID_ARGUMENT, "in ensemble 'x', image_too_large@preprocess: 60 MP.", "x")
    assert (error.code, error.step, error.detail) == ("image_too_large", "preprocess", "60 MP.")


def test_a_failing_network_is_named() -> None:
    """The answer names the failed step, and does not show its message."""
    error = gateway_error(Code.INVALID_ARGUMENT, "in ensemble 'x', backend_error@network: the network failed", "x")
    assert (error.status, error.step) == (502, "network")
    assert "network failed" not in error.detail


def test_dead_steps_are_recognised() -> None:
    """The sentence that proves a dead process is found in any message."""
    assert is_dead_step("Stub process 'x_0_1' is not healthy.")
    assert not is_dead_step("")


@pytest.mark.parametrize(
    ("details", "step"),
    [
        ("in ensemble 'x', Stub process 'x_preprocess_0_1' is not healthy.", "preprocess"),
        ("in ensemble 'x', Failed to process the request(s) for model 'x_network_0_0', message: Traceback", "network"),
        ("Failed to process the request(s) for model instance 'x_postprocess_0', message: /secret", "postprocess"),
        ("Failed to process the request(s) for model 'other_0_0', message: no", None),
        ("no name at all", None),
    ],
)
def test_the_step_that_failed_is_named(details: str, step: str | None) -> None:
    """Where Triton's message names the instance, the answer names the step, and nothing else."""
    error = gateway_error(Code.INTERNAL, details, "x")
    assert error.step == step
    assert "/secret" not in error.detail
