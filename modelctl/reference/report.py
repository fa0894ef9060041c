"""How served answers agree with their reference: as a table, or as an object for JSON."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import NamedTuple

from modelctl.reference.agreement import Difference


class Limits(NamedTuple):
    """The largest differences that count as the same answer; `levels` are grey levels of the prepared picture."""

    score: float
    pixels: float
    levels: float


def as_object(name: str, differences: list[Difference], allowed: Limits) -> dict[str, object]:
    """Return what `report` prints; a difference that is not finite is null, since JSON has no such number."""
    items = [
        {
            key: value if not isinstance(value, float) or math.isfinite(value) else None
            for key, value in asdict(one).items()
        }
        | {"same": one.is_within(*allowed)}
        for one in differences
    ]
    return {"name": name, "same": all(item["same"] for item in items), **allowed._asdict(), "items": items}


def show(name: str, differences: list[Difference], allowed: Limits) -> int:
    """Print a line for each item, with a mark where it differs too much, and a summary; return the exit code."""
    print(f"{'item':42}{'best':6}{'score':>10}{'pixels':>8}{'missing':>9}{'levels':>8}")
    bad = 0
    for one in differences:
        fine = one.is_within(*allowed)
        bad += not fine
        print(
            f"{one.item:42}{'same' if one.best else 'other':6}{one.score:10.6f}{one.pixels:8.2f}{one.missing:9}"
            f"{one.levels:8.2f}{'' if fine else '  <-'}"
        )
    verdict = "answers as its reference" if not bad else f"differs from its reference on {bad} of {len(differences)}"
    print(
        f"{name} {verdict} (limits: {allowed.score} in score, {allowed.pixels} pixels in a box, "
        f"{allowed.levels:g} grey levels in the prepared picture)."
    )
    return int(bad > 0)
