"""Stacks to be broken: Tritons with a model of a given pace, and gateways for one or two of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from broken import Triton


@pytest.fixture(scope="module")
def make_triton(make_stack: Callable[..., Any]) -> Callable[..., Triton]:
    """Return a function that starts a Triton, with any named bundled models too."""

    def make(*names: str) -> Triton:
        made = Triton(make_stack(names, test_models=False))
        if names:
            config = made.folder / "config.pbtxt"
            lines = [line for line in config.read_text().splitlines() if '"default"' not in line]
            config.write_text("\n".join(lines) + "\n")
        made.stack.start_triton()
        return made

    return make


@pytest.fixture(scope="module")
def make_gateway(make_stack: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that starts a gateway for Tritons."""

    def make(*tritons: Triton, **settings: str) -> Any:
        urls = ",".join(triton.address for triton in tritons)
        made = make_stack((), {"GATEWAY_TRITON_URLS": urls, **settings}, test_models=False)
        made.start_gateway()
        made.wait_ready()
        return made

    return make
