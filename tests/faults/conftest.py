"""Tritons to be broken, with a model of a set pace."""

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
