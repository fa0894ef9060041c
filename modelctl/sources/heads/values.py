"""What the numbers in a detector's outputs say: whether they are probabilities, and how boxes are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Unit = Literal["pixels", "normalized"]
BoxFormat = Literal["corners", "centre"]

ROUNDING = 1e-3
MAX_NORMALIZED = 2.0
"""Shares of the input stay near 0 to 1; pixels of any real network reach far beyond."""
MOST = 0.95
"""Share of boxes that must be possible, so that a few odd ones of low score do not decide."""
STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32), (4, 8, 16, 32), (8, 16), (16,), (32,), (8,))
"""The cell sizes that networks use, level by level."""


def are_probabilities(values: Array) -> bool:
    """Tell whether all values lie in 0 to 1, up to rounding."""
    return not values.size or (float(values.min()) >= -ROUNDING and float(values.max()) <= 1 + ROUNDING)


def are_whole(values: Array) -> bool:
    """Tell whether all values are whole numbers from 0, as class ids are."""
    return bool((values >= 0).all() and (np.abs(values - np.rint(values)) < ROUNDING).all())


def sum_to_one(rows: Array) -> bool:
    """Tell whether each row of probabilities [N, C] is one distribution."""
    return rows.shape[-1] > 1 and bool(np.allclose(rows.sum(axis=-1), 1, atol=5e-3))


def spread(values: Array) -> str:
    """Return the range of values in words."""
    return f"{float(values.min()):.3g} to {float(values.max()):.3g}" if values.size else "nothing"


def unit_of(boxes: Array) -> Unit | None:
    """Return the unit of boxes [N, 4]; None when all are zero."""
    top = float(np.abs(boxes).max()) if boxes.size else 0.0
    if not top:
        return None
    return "normalized" if top <= MAX_NORMALIZED else "pixels"


def share(boxes: Array, box_format: BoxFormat, size: Sequence[float]) -> float:
    """Return the share of boxes [N, 4] that are possible in a format; `size` is the input's in the boxes' unit."""
    if not boxes.size:
        return 1.0
    limit = np.array(size, np.float64)
    first, second = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    if box_format == "corners":
        fits = (second >= first) & (first >= -limit / 2) & (second <= 1.5 * limit)
    else:
        fits = (second >= 0) & (first >= -limit / 4) & (first <= 1.25 * limit)
    return float(fits.all(axis=1).mean())


def size_in(unit: Unit | None, size: tuple[int, int], boxes: Array) -> tuple[float, float]:
    """Return the input's size in a unit; for an input of any size that which the boxes reach."""
    if unit == "normalized":
        return 1.0, 1.0
    if all(size):
        return float(size[0]), float(size[1])
    top = float(np.abs(boxes).max()) if boxes.size else 1.0
    return top, top


def format_of(boxes: Array, size: tuple[int, int]) -> BoxFormat | None:
    """Return how boxes [N, 4] are written; None when neither is possible.

    Boxes all over a picture cannot be taken for the other format: a far corner read as a size leaves the picture, and
    a size read as a far corner is nearer than its own near one.
    """
    limit = size_in(unit_of(boxes), size, boxes)
    if share(boxes, "corners", limit) >= MOST:
        return "corners"
    return "centre" if share(boxes, "centre", limit) >= MOST else None


def may_be_centres(boxes: Array, size: tuple[int, int]) -> bool:
    """Tell whether boxes [N, 4] that are possible corners would lie in the picture as centres with sizes as well.

    A far corner is a large size, so that one box in the lower right of a picture settles it.
    """
    limit = np.array(size_in(unit_of(boxes), size, boxes))
    middle, half = boxes[:, :2], boxes[:, 2:] / 2
    inside = (middle - half >= -EDGE * limit) & (middle + half <= (1 + EDGE) * limit)
    return bool(len(boxes)) and float(inside.all(axis=1).mean()) >= MOST


EDGE = 0.1
"""Part of the picture's side by which a right box crosses its edge at most."""


def cells(size: tuple[int, int], strides: Sequence[int], *, up: bool = False) -> int:
    """Return the number of grid cells; with `up`, cells that the edge cuts off count."""
    return sum(
        (-(-size[0] // stride) if up else size[0] // stride) * (-(-size[1] // stride) if up else size[1] // stride)
        for stride in strides
    )


def grid_of(rows: int, size: tuple[int, int], per_cell: Sequence[int]) -> tuple[int, tuple[int, ...]] | None:
    """Return boxes per cell, and strides, with which a network of this input has so many rows."""
    for count in per_cell:
        for strides in STRIDES:
            if rows and count * cells(size, strides) == rows:
                return count, strides
    return None
