"""The bytes that the process holds for its requests, and freed memory that goes back to the system.

Bodies, fetched images, items that are with Triton after their callers have left (`app.scheduling.coalescing`) and
answers that no client has taken yet (`app.http.outgoing`) all count against one `Budget`.
"""

from __future__ import annotations

import ctypes
from typing import Protocol

from app.errors import OverloadedError

LARGE_BYTES = 16_000_000
"""Once this many bytes were held and are released again, memory is given back to the system."""


class Gauge(Protocol):
    """A metric that shows a value."""

    def set(self, value: float) -> None:
        """Show `value`."""


class Budget:
    """The bytes of bodies and answers that the process may hold at once."""

    def __init__(self, most: int, gauge: Gauge | None = None) -> None:
        self.most = most
        self.held = 0
        self._peak = 0
        self._gauge = gauge

    def take(self, count: int) -> None:
        """Hold `count` more bytes.

        Raises:
            OverloadedError: when there is no room for them.

        """
        if self.held + count > self.most:
            raise OverloadedError("The gateway's memory for requests and answers is full.")
        self.add(count)

    def give_back(self, count: int) -> None:
        """Release `count` bytes."""
        self.add(-count)

    def add(self, count: int) -> None:
        """Count `count` more bytes, which exist already whether there is room or not; fewer where it is negative."""
        self.held += count
        self._peak = max(self._peak, self.held)
        if self._gauge is not None:
            self._gauge.set(self.held)

    def settle(self) -> None:
        """Give memory back to the system when much was held and little is held now; called every second."""
        if self._peak > LARGE_BYTES and self.held < self._peak // 4:
            self._peak = self.held
            give_back()


class Held:
    """Bytes of one answer that count against a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._count = 0

    def resize(self, count: int) -> None:
        """Hold `count` bytes instead of the current number.

        Raises:
            OverloadedError: when there is no room for more.

        """
        if count > self._count:
            self._budget.take(count - self._count)
        else:
            self._budget.give_back(self._count - count)
        self._count = count

    def give_back(self) -> None:
        """Hold nothing more."""
        self._budget.give_back(self._count)
        self._count = 0


def give_back() -> None:
    """Give back what glibc keeps in arenas that other blocks keep from shrinking; takes some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)
