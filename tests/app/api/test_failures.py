"""Every failure is answered as a problem; an exception of the gateway's own is logged and redacted."""

from __future__ import annotations

import asyncio

import httpx
import pytest
import structlog
from fastapi import FastAPI, HTTPException, Query

from app import errors
from app.main import create_app
from app.settings import Settings


def ask(app: FastAPI, path: str, method: str = "GET", host: str = "localhost") -> httpx.Response:
    """Send one request."""

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}") as client:
            return await client.request(method, path, headers={"X-Request-ID": "mine"})

    return asyncio.run(send())


def test_an_unexpected_exception_is_a_redacted_500() -> None:
    """Any exception of a route becomes `internal_error`, and the answer shows nothing of it."""
    app = create_app(Settings())

    @app.get("/fault")
    async def fault() -> None:
        raise RuntimeError("secret")

    response = ask(app, "/fault")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.json()["code"], response.json()["request_id"]) == ("internal_error", "mine")
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("path", "method", "host", "status", "code"),
    [
        ("/nothing", "GET", "localhost", 404, "not_found"),
        ("/v1/models", "POST", "localhost", 405, "method_not_allowed"),
        ("/v1/sentiment", "GET", "localhost", 405, "method_not_allowed"),
        ("/number?n=many", "GET", "localhost", 422, "invalid_parameter"),
        ("/v1/models", "GET", "evil.example", 403, "forbidden"),
    ],
)
def test_refusals_before_a_route_are_problems(path: str, method: str, host: str, status: int, code: str) -> None:
    """Refusals of the router, of FastAPI's validation and of the door carry the request's id."""
    app = create_app(Settings())

    @app.get("/number")
    async def number(n: int = Query()) -> int:
        return n

    response = ask(app, path, method, host)
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.json()["request_id"] == response.headers["x-request-id"] == "mine"
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (errors.BackendUnavailableError("Triton does not answer."), ["backend_unavailable"]),
        (errors.InvalidParameterError("top_k is 0."), []),
    ],
    ids=["ours", "the caller's"],
)
def test_only_server_errors_are_logged_with_their_cause(error: errors.GatewayError, logged: list[str]) -> None:
    """The cause goes to the log and not to the caller."""
    app = create_app(Settings())

    @app.get("/fault")
    async def fault() -> None:
        raise error from OSError("secret")

    with structlog.testing.capture_logs() as lines:
        response = ask(app, "/fault")
    assert (response.status_code, response.json()["code"]) == (error.status, error.code)
    assert "secret" not in response.text
    failed = [line for line in lines if line["event"] == "request failed"]
    assert [line["code"] for line in failed] == logged
    assert all(line["cause"] == "secret" for line in failed)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "malformed_request"),
        (401, "malformed_request"),
        (403, "forbidden"),
        (404, "not_found"),
        (409, "malformed_request"),
        (413, "body_too_large"),
        (415, "unsupported_media_type"),
        (429, "overloaded"),
        (500, "internal_error"),
        (503, "backend_unavailable"),
        (507, "internal_error"),
    ],
)
def test_http_exceptions_keep_their_status(status: int, code: str) -> None:
    """An HTTPException keeps its status and headers; a status without a code gets that of 400 or 500."""
    app = create_app(Settings())

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPException(status, "No.", headers={"WWW-Authenticate": "Bearer", "Retry-After": "7"})

    response = ask(app, "/refused")
    assert (response.status_code, response.json()["status"], response.json()["code"]) == (status, status, code)
    assert (response.headers["www-authenticate"], response.headers["retry-after"]) == ("Bearer", "7")
    assert (response.json()["detail"] == "No.") == (status not in (400, 404))


def test_hugging_faces_client_gets_the_reason_in_a_header() -> None:
    """The client reads why a request failed from a header, if the query asks for its format."""
    app = create_app(Settings())
    assert "x-error-message" in ask(app, "/v1/sentiment?format=hf", "GET").headers
    assert "x-error-message" not in ask(app, "/v1/sentiment", "GET").headers
