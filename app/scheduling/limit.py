"""The concurrency limit of one model, by the rule of TCP Vegas: how many items may be with Triton at once.

While calls take little longer than the fastest ones did, the limit grows. When they take much longer, further items
only wait inside Triton, where the gateway cannot schedule them fairly, so the limit shrinks (Brakmo and Peterson, 1995;
for servers: Netflix, concurrency-limits). With dynamic batching a lone call is not the fastest way to serve an item, so
the limit never falls below its floor: two full batches for each server.
"""

from __future__ import annotations

import math

WINDOW_S = 0.5
"""The shortest measurement window."""
CALM, CROWDED = 0.25, 0.5
"""The limit grows when a smaller share of a call's time than CALM is spent waiting in Triton, and shrinks above
CROWDED."""
FORGET_S = 30.0
"""How long the best service time is remembered. It cannot hold for ever: pictures may become larger."""


class ConcurrencyLimit:
    """How many items may be with Triton at once.

    Attributes:
        value: the limit.
        rate: items per second that came back in the last window; 0 until there was one.
        service_s: average seconds per call in the last window; 0 until there was one.

    """

    def __init__(self, floor: int, ceiling: int, now: float) -> None:
        self.ceiling, self.value = ceiling, 0
        self.raise_to(floor)
        self.rate = self.service_s = 0.0
        self._bests = [math.inf, math.inf]
        self._forget_at = now + FORGET_S
        self.begin(now)

    def raise_to(self, floor: int) -> None:
        """Set the floor, which changes as models and servers come and go."""
        self.floor = min(floor, self.ceiling)
        self.value = max(self.value, self.floor)

    def begin(self, now: float) -> None:
        """Open a measurement window; called after an idle time too, which says nothing about capacity."""
        self._begun, self._count, self._served, self._total, self._busiest, self._failed = now, 0, 0, 0.0, 0, False

    def observe(self, now: float, seconds: float | None, with_triton: int, *, failed: bool = False) -> None:
        """Count one call.

        Args:
            now: when it ended.
            seconds: how long it took; None when a step refused the item.
            with_triton: how many items were with Triton, this one included.
            failed: whether it missed its deadline, and so was not served.

        """
        self._busiest = max(self._busiest, with_triton)
        self._failed |= failed
        self._served += not failed
        if seconds is not None:
            self._count += 1
            self._total += seconds
        if now - self._begun >= WINDOW_S and self._count >= self.floor:
            self._close(now)

    def _close(self, now: float) -> None:
        self.service_s = self._total / self._count
        if self._busiest > self.value / 2:  # a quieter window says nothing about Triton's capacity
            self.rate = self._served / (now - self._begun)
            if now > self._forget_at:
                self._bests, self._forget_at = [math.inf, self._bests[0]], now + FORGET_S
            self._bests[0] = min(self._bests[0], self.service_s)
            waiting = 1 - min(self._bests) / self.service_s if self.service_s else 0.0
            step = max(1, round(math.log2(self.value)))
            if self._failed or waiting > CROWDED:
                self.value = max(self.floor, self.value - step)
            elif waiting < CALM:
                self.value = min(self.ceiling, self.value + step)
        self.begin(now)
