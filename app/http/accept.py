"""The media type of an answer: the best that a route offers, by the caller's `Accept` (RFC 9110, 12.5.1)."""

from __future__ import annotations

from functools import lru_cache

JSON = "application/json"


@lru_cache(256)  # there are few different headers
def best(accept: str, offered: tuple[str, ...]) -> str | None:
    """Return the offered media type that the caller prefers, of equal ones the first; None when it accepts none."""
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    quality, _, kind = max((_quality(kind, ranges), -index, kind) for index, kind in enumerate(offered))
    return kind if quality > 0 else None


def _range(part: str) -> tuple[str, float]:
    """Return a media range and its weight; a missing weight, or one that cannot be read, is 1."""
    kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
    weights = [value.removeprefix("q=").strip() for value in parameters if value.startswith("q=")]
    try:
        return kind, min(1.0, max(0.0, float(weights[0]))) if weights else 1.0
    except ValueError:
        return kind, 1.0


def _quality(kind: str, ranges: list[tuple[str, float]]) -> float:
    """Return the weight of the most specific range that includes `kind`; 0 when none does."""
    for name in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        weights = [weight for given, weight in ranges if given == name]
        if weights:
            return max(weights)
    return 0.0
