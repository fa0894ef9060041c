"""Both clients have the same calls with the same signatures; one client blocks, the other is awaited."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from unittest import mock

import httpx
import pytest

from tests.standins.gateway import SENTIMENT
from triton_gateway_client import AsyncGateway, Gateway
from triton_gateway_client.calls import Call, Calls

NAMES = sorted(name for name, value in vars(Calls).items() if isinstance(value, Call))


def test_no_call_is_missing() -> None:
    """This is the complete list, and neither client has other calls."""
    assert NAMES == [
        "classify",
        "classify_many",
        "detect",
        "detect_many",
        "health",
        "model",
        "models",
        "ready",
        "sentiment",
        "sentiment_many",
        "wait_until_ready",
    ]
    own = {name for kind in (Gateway, AsyncGateway) for name in vars(kind) if not name.startswith("_")}
    assert own - set(NAMES) == {"close", "aclose"}


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_arguments_and_results(name: str) -> None:
    """Signatures are equal and name results; docstrings are kept; only the asynchronous client's are awaited."""
    blocking: Callable[..., Any] = getattr(Gateway, name)
    awaited: Callable[..., Any] = getattr(AsyncGateway, name)
    assert inspect.signature(blocking) == inspect.signature(awaited)
    assert "Steps" not in str(inspect.signature(blocking))
    assert blocking.__doc__
    assert blocking.__doc__ == awaited.__doc__
    assert (inspect.iscoroutinefunction(blocking), inspect.iscoroutinefunction(awaited)) == (False, True)


def test_calls_may_be_taken_from_the_class_and_mocked() -> None:
    """As with methods written in the class."""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=SENTIMENT))
    with httpx.Client(transport=transport) as http:
        assert Gateway.sentiment(Gateway(http=http), "fine").label == "positive"
    assert isinstance(mock.create_autospec(AsyncGateway).classify, mock.AsyncMock)
    double = mock.create_autospec(Gateway, instance=True)
    double.model("name")
    with pytest.raises(TypeError):
        double.model("name", "one too many")


def test_a_subclass_keeps_its_own_methods() -> None:
    """A subclass of a client may replace a call."""

    class Own(Gateway):
        def ready(self) -> bool:  # type: ignore[override]
            return True

    class Further(Own):
        pass

    with Further() as gateway:
        assert gateway.ready()
