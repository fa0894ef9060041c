"""A fault of the gateway's own is answered, logged and redacted."""

from __future__ import annotations

import asyncio

import httpx

from app.main import create_app
from app.settings import Settings


def test_a_fault_is_a_redacted_500() -> None:
    """Whatever a route raises becomes `internal_error`, and the answer shows nothing of it."""
    app = create_app(Settings())

    @app.get("/fault")
    async def fault() -> None:
        raise RuntimeError("secret")

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.get("/fault", headers={"X-Request-ID": "mine"})

    response = asyncio.run(ask())
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.json()["code"], response.json()["request_id"]) == ("internal_error", "mine")
    assert "secret" not in response.text
