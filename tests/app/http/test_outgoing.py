"""Unread answers count as held bytes, and clients that read too slowly are disconnected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.http.outgoing import MIN_RATE, Outgoing
from app.memory import Budget

TIMEOUT_S = 30.0


class Transport(asyncio.Transport):
    """A transport with a given number of unsent bytes."""

    size = 0
    aborted = False

    def get_write_buffer_size(self) -> int:
        """Return the unsent bytes."""
        return self.size

    def abort(self) -> None:
        """Note the call."""
        self.aborted = True


def watched(size: int, take: Callable[[int], int], seconds: int) -> tuple[int, bool]:
    """Let a client read these bytes each second; return when it had all or was cut, and whether it was cut."""
    budget, transport, now = Budget(10), Transport(), 0.0

    async def test() -> tuple[int, bool]:
        nonlocal now
        asyncio.get_running_loop().time = lambda: now  # type: ignore[method-assign]
        outgoing = Outgoing(budget, TIMEOUT_S)
        backlog = outgoing.add(transport)
        transport.size = size
        for second in range(seconds):
            now = second
            outgoing.look(backlog)
            assert budget.held == transport.size
            if transport.aborted or not transport.size:
                break
            transport.size = max(0, transport.size - take(second))
        outgoing.remove(backlog)
        outgoing.remove(backlog)
        assert budget.held == 0
        return second, transport.aborted

    return asyncio.run(test())


@pytest.mark.parametrize("size", [1, 1_000_000, 70_000_000])
@pytest.mark.parametrize("take", [lambda _: 0, lambda _: 1, lambda second: 300_000 * (second == 1)])
def test_slow_readers_are_disconnected(size: int, take: Callable[[int], int]) -> None:
    """Nothing, a byte at times, or much once: it ends after one or two windows, however large the answer is."""
    seconds, cut = watched(size, take, 1000)
    assert seconds <= 2 * TIMEOUT_S
    assert cut == (sum(take(second) for second in range(60)) < size)


@pytest.mark.parametrize("size", [1000, 1_000_000, 70_000_000])
@pytest.mark.parametrize("every", [1, 20])
def test_slow_but_steady_readers_get_all(size: int, every: int) -> None:
    """Slightly more than the minimum rate is enough, in small or large pieces."""
    rate = int(MIN_RATE * 1.5)
    seconds, cut = watched(size, lambda second: rate * every * (second % every == 0), 10_000)
    assert not cut
    assert seconds <= size / rate + every + 1
