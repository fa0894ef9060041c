"""Which media type an answer has: the best of a route's, by the caller's `Accept` (RFC 9110, 12.5.1)."""

from __future__ import annotations

from functools import lru_cache

JSON = "application/json"


@lru_cache(256)  # callers send few different headers
def best(accept: str, offered: tuple[str, ...]) -> str | None:
    """Return the offered media type that the caller likes best, the earlier of two alike; None when it takes none."""
    ranges = [_range(part) for part in accept.split(",") if part.strip()] or [("*/*", 1.0)]
    quality, _, kind = max((_quality(kind, ranges), -place, kind) for place, kind in enumerate(offered))
    return kind if quality > 0 else None


def _range(part: str) -> tuple[str, float]:
    """Return a media range and its weight; a weight that cannot be read is 1, as if it were not there."""
    kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
    weights = [value.removeprefix("q=").strip() for value in parameters if value.startswith("q=")]
    try:
        return kind, min(1.0, max(0.0, float(weights[0]))) if weights else 1.0
    except ValueError:
        return kind, 1.0


def _quality(kind: str, ranges: list[tuple[str, float]]) -> float:
    """Return the weight of the range that names `kind` most exactly; 0 when none does."""
    for name in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        weights = [weight for given, weight in ranges if given == name]
        if weights:
            return max(weights)
    return 0.0
