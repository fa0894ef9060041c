"""Resizes pictures by one of Pillow's filters, or as OpenCV does, which smooths less.

Pillow's filters smooth when they shrink. OpenCV's linear interpolation does not: it reads the four pixels around each
point. Networks that were trained on the one give other scores on the other (by up to 0.2 for detectors).

    opencv_linear   `Image.transform`, which reads the same four pixels: within one grey level of cv2.INTER_LINEAR
    opencv_area     the mean of the pixels that an output pixel covers: within one grey level of cv2.INTER_AREA

Source of both: `cv::resize` and `computeResizeAreaTab` of OpenCV 4.11, modules/imgproc/src/resize.cpp.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

SUPPORT: Final = 3  # pixels of the output that the widest filter, Lanczos, reaches to either side

# Pixels of which `Image.reduce` makes one; it divides by a factor of 24 bits, which is too coarse for many more.
_MAX_REDUCED: Final = 1024

# A smaller share of a pixel is a rounding error; OpenCV leaves it out too.
_SLIVER: Final = 1e-3


class OpenCV(Enum):
    """The filters of OpenCV, by the names of `resample`."""

    LINEAR = "opencv_linear"
    AREA = "opencv_area"


Filter = Image.Resampling | OpenCV


def filter_of(name: str) -> Filter:
    """Return a filter by its name in a recipe; raises KeyError or ValueError for another name."""
    return OpenCV(name) if name.startswith("opencv_") else Image.Resampling[name.upper()]


def resize(
    image: Image.Image, size: tuple[int, int], method: Filter, part: tuple[float, float] | None = None
) -> Image.Image:
    """Resize a picture.

    Args:
        image: of mode RGB or L.
        size: width and height of the result.
        method: the filter.
        part: width and height of the part at the top left that fills the result; the whole picture by default.

    """
    width, height = part or image.size
    if method is OpenCV.LINEAR:
        across, down = width / size[0], height / size[1]
        return image.transform(size, Image.Transform.AFFINE, (across, 0, 0, 0, down, 0), Image.Resampling.BILINEAR)
    if method is OpenCV.AREA:
        return _area(image, size, (width, height))
    return image.resize(size, method, (0, 0, width, height) if part else None)


class _Taps(NamedTuple):
    """The source pixels `first` to `last` of each output pixel along one axis, and their weights.

    All pixels between the two ends weigh the same.
    """

    first: npt.NDArray[np.intp]
    last: npt.NDArray[np.intp]
    first_weight: npt.NDArray[np.float32]
    last_weight: npt.NDArray[np.float32]
    weight_between: float


def _area(image: Image.Image, size: tuple[int, int], part: tuple[float, float]) -> Image.Image:
    factors = part[0] / size[0], part[1] / size[1]
    is_whole = part == image.size and all(factor.is_integer() for factor in factors)
    if is_whole and factors[0] * factors[1] <= _MAX_REDUCED:
        return image.reduce((int(factors[0]), int(factors[1])))
    taps_of = _covered if min(factors) >= 1 else _nearest_two
    across, down = (
        taps_of(source, target, extent) for source, target, extent in zip(image.size, size, part, strict=True)
    )
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    # Rows first is the cheaper order in memory, unless it makes the picture in between much larger.
    if size[1] * image.width <= 4 * size[0] * image.height:
        made = _turned(_weigh(_turned(_weigh(pixels, down)), across))
    else:
        made = _weigh(_turned(_weigh(_turned(pixels), across)), down)
    values = np.rint(made).clip(0, 255).astype(np.uint8)
    return Image.fromarray(values if values.shape[2] == 3 else values[:, :, 0])


def _turned(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Swap rows and columns, in memory too: strided sums take several times as long."""
    return np.ascontiguousarray(pixels.swapaxes(0, 1))


def _covered(source: int, target: int, extent: float) -> _Taps:
    """Return the pixels that each output pixel covers, weighted by the share that lies in it."""
    factor = extent / target
    starts = np.arange(target) * factor
    ends = np.minimum(starts + factor, source)
    first, last = np.floor(starts + _SLIVER).astype(np.intp), np.ceil(ends - _SLIVER).astype(np.intp) - 1
    head = np.minimum(first + 1, ends) - np.maximum(first, starts)
    tail = np.where(last > first, ends - last, 0)
    total = head + tail + np.maximum(last - first - 1, 0)
    return _Taps(first, last, (head / total).astype(np.float32), (tail / total).astype(np.float32), 1 / factor)


def _nearest_two(source: int, target: int, extent: float) -> _Taps:
    """Return the two pixels between which OpenCV interpolates where a side is enlarged: each keeps a flat middle."""
    inverse = target / extent  # OpenCV divides twice, which decides the pixel where the quotient is nearly whole
    left = np.floor(np.arange(target) * (1 / inverse)).astype(np.intp)
    share = (np.arange(1, target + 1) - (left + 1) * inverse).astype(np.float32)
    share = np.where(share <= 0, 0, share - np.floor(share))
    weights = (1 - share).astype(np.float32), share.astype(np.float32)
    return _Taps(left.clip(0, source - 1), (left + 1).clip(0, source - 1), *weights, 0.0)


def _weigh(rows: npt.NDArray[Any], taps: _Taps) -> npt.NDArray[np.float32]:
    """Return the weighted sums of rows [source, ...] as FP32 [target, ...].

    No matrix product: its threads would wait for each other where many steps share few cores.
    """
    made = np.empty((len(taps.first), *rows.shape[1:]), np.float32)
    exact = np.uint32 if rows.dtype == np.uint8 else np.float32
    for target, (first, last, head, tail) in enumerate(zip(*taps[:4], strict=True)):
        made[target] = rows[first] * head
        if tail:
            made[target] += rows[last] * tail
        if last - first > 1 and taps.weight_between:
            between = np.add.reduce(rows[first + 1 : last], axis=0, dtype=exact)
            made[target] += between * np.float32(taps.weight_between)
    return made
