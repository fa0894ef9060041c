"""Both clients behind one face, and a gateway that answers what a test tells it to (tests/standins/gateway.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.standins.gateway import Script
from triton_gateway_client import AsyncGateway, Gateway


@dataclass
class Client:
    """One of the two clients: calls it, and closes it."""

    is_async: bool

    def __call__(
        self, base_url: str, name: str, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Return what the method `name` of a client made with `options` returns."""
        if not self.is_async:
            with Gateway(base_url, **(options or {})) as gateway:
                return getattr(gateway, name)(*args, **kwargs)

        async def call() -> Any:
            async with AsyncGateway(base_url, **(options or {})) as gateway:
                return await getattr(gateway, name)(*args, **kwargs)

        return asyncio.run(call())


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Client:
    """Return each client in its turn."""
    return Client(request.param == "async")


@pytest.fixture
def script(client: Client) -> Callable[..., Script]:
    """Return the function that makes a scripted gateway from its answers."""
    return lambda *answers: Script(client, list(answers))
