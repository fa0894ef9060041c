"""The limit on the bytes that the process holds for its requests, and the return of freed memory to the system.

Bodies, fetched images, items that are with Triton after their callers have left (`app.scheduling.coalescing`) and
answers that no client has taken yet (`app.http.outgoing`) all count against one `Budget`.
"""

from __future__ import annotations

import ctypes
from typing import Protocol

from app.errors import OverloadedError

LARGE_BYTES = 16_000_000
"""Memory goes back to the system after more than this many bytes were held and have been released."""


class Gauge(Protocol):
    """A metric that shows a value."""

    def set(self, value: float) -> None:
        """Show `value`."""


class Budget:
    """The bytes of bodies and answers that the process may hold at once."""

    def __init__(self, max_bytes: int, gauge: Gauge | None = None) -> None:
        self.max_bytes = max_bytes
        self.held = 0
        self._peak = 0
        self._gauge = gauge

    def take(self, count: int) -> None:
        """Hold `count` more bytes.

        Raises:
            OverloadedError: when there is no room for them.

        """
        if self.held + count > self.max_bytes:
            raise OverloadedError("The gateway's memory for requests and answers is full.")
        self.add(count)

    def give_back(self, count: int) -> None:
        """Release `count` bytes."""
        self.add(-count)

    def add(self, count: int) -> None:
        """Count `count` more bytes that exist already, even past the limit; a negative count releases bytes."""
        self.held += count
        self._peak = max(self._peak, self.held)
        if self._gauge is not None:
            self._gauge.set(self.held)

    def settle(self) -> None:
        """Give memory back to the system when less than a quarter of a large peak is held now; called every second."""
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
    """Give the system free memory that glibc keeps because blocks in use lie above it; takes some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)
