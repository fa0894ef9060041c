"""The Pareto front of a sweep's settings, by throughput and p99.

A setting is on the front when no other has the same throughput at a lower p99, or more throughput at the same p99.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelctl.bench.copy import Setting

CLOSE = 0.05
"""Settings whose throughput differs by less count as equally fast: runs of a few seconds cannot tell them apart."""


@dataclass(frozen=True)
class Point:
    """A setting of the server, and the number of callers."""

    setting: Setting
    callers: int

    @property
    def server(self) -> str:
        """The server's setting in words."""
        one = self.setting
        return f"batch {one.batch}, instances {one.count}, delay {one.delay_us} us"

    @property
    def label(self) -> str:
        """Its name in results."""
        return f"{self.server}, callers {self.callers}"

    def with_setting(self, setting: Setting) -> Point:
        """Return another setting under the same callers."""
        return replace(self, setting=setting)


@dataclass(frozen=True)
class Figure:
    """A point's throughput in inferences per second, and its p99 in milliseconds."""

    throughput: float
    p99: float

    def beats(self, other: Figure, slack: float) -> bool:
        """Tell whether this is better in one and not worse in the other, each by more than a factor of 1 + slack."""
        factor = 1 + slack
        faster, sooner = self.throughput >= other.throughput * factor, self.p99 * factor <= other.p99
        return faster and sooner and self != other


def front(figures: Mapping[Point, Figure], slack: float = 0.0) -> list[Point]:
    """Return the points that no other beats, the slowest first; with slack, also those that are nearly as good."""
    kept = [point for point, one in figures.items() if not any(other.beats(one, slack) for other in figures.values())]
    return sorted(kept, key=lambda point: (figures[point].throughput, figures[point].p99))


def thinned(points: list[Point], most: int) -> list[Point]:
    """Return at most `most` points (2 or more), evenly spaced, including the first and the last."""
    if len(points) <= most:
        return points
    return [points[round(number * (len(points) - 1) / (most - 1))] for number in range(most)]


def recommended(figures: Mapping[Point, Figure], bound: float) -> Point | None:
    """Return the fastest point whose p99, in milliseconds, is within the bound; None when there is none.

    Among points within 5 percent of its throughput, the one with the fewest instances wins, because instances cost
    memory; then the one with the lowest delay, the smallest batch and the lowest p99.
    """
    within = {point: one for point, one in figures.items() if one.p99 <= bound}
    if not within:
        return None
    least = max(one.throughput for one in within.values()) * (1 - CLOSE)

    def order(point: Point) -> tuple[float, ...]:
        setting = point.setting
        return setting.count, setting.delay_us or 0, setting.batch or 0, within[point].p99

    return min((point for point, one in within.items() if one.throughput >= least), key=order)
