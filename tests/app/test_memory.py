"""The limit on the bytes that a process may hold."""

from __future__ import annotations

import pytest

from app.errors import OverloadedError
from app.memory import Budget


def test_the_budget_is_never_exceeded() -> None:
    """Bytes beyond the limit are refused and not counted."""
    budget = Budget(10)
    budget.take(8)
    with pytest.raises(OverloadedError):
        budget.take(3)
    budget.give_back(8)
    budget.take(10)
    assert budget.held == 10
