"""`cv2.resize` by its definition, in numpy: what `opencv_linear` and `opencv_area` must give.

Source: modules/imgproc/src/resize.cpp of OpenCV 4.11: `HResizeLinear`, `VResizeLinear` in fixed point for 8 bits,
`computeResizeAreaTab`, and the linear interpolation that INTER_AREA becomes where a side is enlarged.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ONE = 2048
"""1 in the fixed-point numbers of OpenCV's weights, which have 11 bits."""


def linear(pixels: Array, size: tuple[int, int]) -> Array:
    """Return `cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)` of UINT8 [height, width, channels]."""
    left, right, across = _neighbours(pixels.shape[1], size[0])
    above, below, down = _neighbours(pixels.shape[0], size[1])
    wide = pixels.astype(np.int64)
    rows = wide[:, left] * (ONE - across)[:, None] + wide[:, right] * across[:, None]
    down = down[:, None, None]
    made = (((ONE - down) * (rows[above] >> 4)) >> 16) + ((down * (rows[below] >> 4)) >> 16)
    return np.asarray(((made + 2) >> 2).clip(0, 255), np.uint8)


def _neighbours(source: int, target: int) -> tuple[Array, Array, Array]:
    """Return the two source pixels around the centre of each output pixel, and the second one's weight of `ONE`."""
    centres = (np.arange(target) + 0.5) * (source / target) - 0.5
    first = np.floor(centres).astype(int)
    share = centres - first
    share[(first < 0) | (first >= source - 1)] = 0
    first = first.clip(0, source - 1)
    return first, (first + 1).clip(0, source - 1), np.rint(share * ONE).astype(int)


def area(pixels: Array, size: tuple[int, int]) -> Array:
    """Return `cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)` of UINT8 [height, width, channels]."""
    shrinks = size[0] <= pixels.shape[1] and size[1] <= pixels.shape[0]
    along = _means if shrinks else _steps
    made = along(along(pixels.astype(float), size[1]).swapaxes(0, 1), size[0]).swapaxes(0, 1)
    return np.asarray(np.rint(made).clip(0, 255), np.uint8)


def _means(rows: Array, target: int) -> Array:
    """Return the mean of the rows that each output row covers: differences of their running sum."""
    running = np.concatenate([np.zeros((1, *rows.shape[1:])), rows.cumsum(axis=0)])
    edges = np.arange(target + 1) * (len(rows) / target)
    whole = np.floor(edges).astype(int).clip(0, len(rows) - 1)
    part = (edges - whole).reshape(-1, *[1] * (rows.ndim - 1))
    sums = running[whole] + part * rows[whole]
    return np.asarray(np.diff(sums, axis=0) / (len(rows) / target))


def _steps(rows: Array, target: int) -> Array:
    """Return each output row as a mix of two rows, the second one by the share of the output row beyond the first."""
    inverse = target / len(rows)
    made = []
    for index in range(target):
        first = math.floor(index * (1 / inverse))
        share = float(np.float32(index + 1 - (first + 1) * inverse))
        share = share - math.floor(share) if share > 0 else 0.0
        made.append(rows[first] * (1 - share) + rows[min(first + 1, len(rows) - 1)] * share)
    return np.stack(made)
