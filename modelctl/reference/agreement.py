"""Compares two sets of answers: of a served model and its reference, or of a network before and after conversion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from modelctl.models.spec import EnsembleSpec, ObjectDetection
from modelctl.reference.answers import Found, iou

SCORE, PIXELS = 1e-3, 1.0


class Limits(NamedTuple):
    """The largest differences that count as the same answer; `levels` are grey levels of the prepared picture."""

    score: float
    pixels: float
    levels: float = math.inf


@dataclass(frozen=True)
class Difference:
    """How one served answer differs from the reference's.

    Attributes:
        best: whether the first labels are equal, or tied.
        score: the largest difference of two scores.
        pixels: the largest difference of two coordinates.
        missing: how many labels or boxes have no counterpart.
        overlap: the least intersection over union of two matched boxes; 1 where there are none.
        is_empty: whether there is nothing to compare, since neither answer has a label or box.
        levels: the largest difference of the network's two inputs, in grey levels of the picture.

    """

    item: str
    best: bool
    score: float
    pixels: float
    missing: int
    overlap: float = 1.0
    is_empty: bool = False
    levels: float = 0.0

    def is_within(self, allowed: Limits) -> bool:
        """Tell whether it is the same answer up to rounding."""
        gaps = ((self.score, allowed.score), (self.pixels, allowed.pixels), (self.levels, allowed.levels))
        return self.best and not self.missing and all(gap <= most for gap, most in gaps)


def threshold_of(spec: EnsembleSpec) -> float:
    """Return the score below which a model omits a box; 0 for models that omit nothing."""
    return spec.postprocess.score_threshold if isinstance(spec, ObjectDetection) else 0.0


@dataclass(frozen=True)
class Agreement:
    """The differences of a few items together: `best`, `empty` and `missing` are sums, the others the worst of any."""

    items: int
    best: int
    score: float
    pixels: float
    missing: int
    overlap: float
    empty: int = 0

    def sentence(self) -> str:
        """Return the agreement in words."""
        if self.empty == self.items:
            return "no box in any sample, so nothing was compared"
        best, items = self.best - self.empty, self.items - self.empty
        text = f"{best} of {items} first labels agree, scores differ by {self.score:.2g} at most"
        boxes = f", boxes overlap by {self.overlap:.3f} at least and {self.missing} have no counterpart"
        text += boxes if self.pixels or self.missing or self.overlap < 1 else ""
        return text + (f"; no box in {self.empty} of {self.items} samples" if self.empty else "")


def agreement(
    pairs: Mapping[str, tuple[list[Found], list[Found]]], spec: EnsembleSpec, tolerance: float = SCORE
) -> Agreement:
    """Return how pairs of answers agree; `pairs` holds (served, expected) by item."""
    found = [compare(name, one, other, threshold_of(spec), tolerance) for name, (one, other) in pairs.items()]
    return Agreement(
        items=len(found),
        best=sum(one.best for one in found),
        score=max(one.score for one in found),
        pixels=max(one.pixels for one in found),
        missing=sum(one.missing for one in found),
        overlap=min(one.overlap for one in found),
        empty=sum(one.is_empty for one in found),
    )


def compare(
    item: str, served: list[Found], expected: list[Found], threshold: float, tolerance: float = SCORE
) -> Difference:
    """Match each expected label or box with the closest served one of its class.

    A label or box whose score is within `tolerance` of the threshold may be missing on either side.
    """
    unmatched = list(served)
    score, pixels, missing, overlap = 0.0, 0.0, 0, 1.0
    for one in expected:
        same = [other for other in unmatched if other.label == one.label and other.class_id in (one.class_id, -1)]
        if not same:
            missing += one.score - threshold > tolerance
            continue
        closest = min(same, key=lambda other: (_box_gap(one, other), abs(one.score - other.score)))
        unmatched.remove(closest)
        score, pixels = max(score, _gap(one.score, closest.score)), max(pixels, _box_gap(one, closest))
        overlap = min(overlap, iou(np.array(one.box), np.array(closest.box))) if one.box else overlap
    missing += sum(not one.score - threshold <= tolerance for one in unmatched)
    best = not expected or not served or served[0].label == expected[0].label or _is_tie(expected, tolerance)
    return Difference(item, best, score, pixels, missing, overlap, is_empty=not expected and not served)


def _is_tie(found: list[Found], tolerance: float) -> bool:
    return len(found) > 1 and found[0].score - found[1].score <= 2 * tolerance


def _box_gap(one: Found, other: Found) -> float:
    return max((_gap(a, b) for a, b in zip(one.box, other.box, strict=True)), default=0.0)


def _gap(one: float, other: float) -> float:
    """Return how far two numbers are apart; infinity when one of them is not finite."""
    gap = abs(one - other)
    return gap if math.isfinite(gap) else math.inf
