"""What every decoder returns, and the ways in which heads write their boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from stages.scores import Array, Floats, Ids

Tensors = Mapping[str, Array]

UNITS: Final = ("pixels", "normalized")
FORMATS: Final = ("corners", "centre", "yxyx")


class Candidates(NamedTuple):
    """Boxes before NMS, in the network's input pixels.

    `boxes` FP32 [k, 4] xmin, ymin, xmax, ymax; `scores` FP32 [k]; `class_ids` INT32 [k].
    """

    boxes: Floats
    scores: Floats
    class_ids: Ids


def corners(boxes: Array) -> Floats:
    """Convert boxes [k, 4] from cx, cy, w, h to xmin, ymin, xmax, ymax."""
    half = boxes[:, 2:] / 2
    return np.asarray(np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1), np.float32)


def from_format(boxes: Array, box_format: str) -> Floats:
    """Convert boxes [k, 4] from one of `FORMATS` to xmin, ymin, xmax, ymax.

    `corners` is that order already, `centre` cx, cy, w, h, `yxyx` ymin, xmin, ymax, xmax (TensorFlow).
    """
    if box_format == "centre":
        return corners(boxes)
    return np.asarray(boxes[:, [1, 0, 3, 2]] if box_format == "yxyx" else boxes, np.float32)


def grid(width: int, height: int, strides: Sequence[int], *, partial: bool = False) -> Floats:
    """Return column, row and stride of every grid cell, FP32 [A, 3], level by level and row by row.

    With `partial` the cells that the input's edge cuts off count too, as in networks that round sizes up.
    """
    levels = []
    for stride in strides:
        rows, columns = (-(-side // stride) if partial else side // stride for side in (height, width))
        ys, xs = np.mgrid[:rows, :columns]
        levels.append(np.stack([xs.ravel(), ys.ravel(), np.full(xs.size, stride)], axis=1))
    return np.asarray(np.concatenate(levels), np.float32)
