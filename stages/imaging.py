"""An upright RGB picture -> a network's input tensor, and the geometry that maps it back to the picture's pixels.

    picture --fit--> uint8 [height, width, 3] + Geometry --normalise--> float32 tensor

`fit` applies one of five resize rules, `normalise` computes (x * scale - mean) / std. Both follow a `Recipe`, which is
read once from the parameters in a step's config.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

RULES: Final = ("shortest_edge_center_crop", "letterbox", "letterbox_center", "stretch", "shortest_edge")
DATA_TYPES: Final[Mapping[str, npt.DTypeLike]] = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8}

# Ratio of the longer to the shorter side above which a picture is cut to its middle before it is resized and cropped.
_MAX_RATIO: Final = 8


@dataclass(frozen=True)
class Recipe:
    """How a picture becomes one network's input.

    Attributes:
        width: of the tensor, in pixels; 0 with `shortest_edge`, where it follows from the picture's proportions.
        height: of the tensor, in pixels; 0 with `shortest_edge`.
        resize: one of `RULES`.
        resize_to: pixels of the shorter side after resizing, and before the crop of `shortest_edge_center_crop`.
        resample: Pillow's filter.
        pad_value: 0 to 255, the grey level around a letterboxed picture.
        scale: factor on the 8-bit values.
        mean: subtracted after `scale`, one value per channel in the tensor's channel order.
        std: divisor, applied last, one value per channel in the tensor's channel order.
        channel_order: RGB or BGR.
        layout: NCHW or NHWC.
        max_pixels: larger pictures are refused.
        longest_edge: limit on the longer side, in pixels; `shortest_edge` only.
        multiple_of: both sides are rounded down to a multiple of this number; `shortest_edge` only.
        rounding: of a fractional longer side: nearest, or down as in torchvision and transformers.

    """

    width: int
    height: int
    resize: str
    resize_to: float = 0.0
    resample: Image.Resampling = Image.Resampling.BILINEAR
    pad_value: int = 114
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channel_order: str = "RGB"
    layout: str = "NCHW"
    max_pixels: int = 50_000_000
    longest_edge: int = 0
    multiple_of: int = 1
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        rules = {
            "width and height must be 1 or more, or absent with shortest_edge": (self.width == self.height == 0)
            if self.is_free
            else (self.width >= 1 and self.height >= 1),
            f"resize must be one of {', '.join(RULES)}": self.resize in RULES,
            "resize_to must be at least width and height": self.resize != "shortest_edge_center_crop"
            or max(self.width, self.height) <= self.resize_to < math.inf,
            "shortest_edge needs 1 <= resize_to <= longest_edge and multiple_of >= 1": not self.is_free
            or (1 <= self.resize_to <= self.longest_edge and self.multiple_of >= 1),
            "rounding must be nearest or down": self.rounding in ("nearest", "down"),
            "pad_value must be 0 to 255": 0 <= self.pad_value <= 255,
            "mean and std must have 3 values": len(self.mean) == len(self.std) == 3,
            "scale, mean and std must be finite numbers": all(map(math.isfinite, (self.scale, *self.mean, *self.std))),
            "std must not be 0": 0 not in self.std,
            "channel_order must be RGB or BGR": self.channel_order in ("RGB", "BGR"),
            "layout must be NCHW or NHWC": self.layout in ("NCHW", "NHWC"),
            "max_pixels must be 1 or more": self.max_pixels >= 1,
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise ValueError("; ".join(broken))

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> Recipe:
        """Read a recipe from a config's parameters, which are strings; an absent parameter has its default.

        Raises:
            ValueError: a parameter is missing, cannot be read, or breaks a rule; the message names it.

        """
        found = {}
        for name, read in _READERS.items():
            if name not in parameters:
                continue
            try:
                found[name] = read(parameters[name])
            except (ValueError, KeyError) as error:
                raise ValueError(f"parameter {name}: cannot read {parameters[name]!r}") from error
        if "resize" not in found:
            raise ValueError("parameter missing: resize")
        return cls(**{"width": 0, "height": 0, **found})

    @property
    def is_free(self) -> bool:
        """Whether the tensor's size depends on the picture."""
        return self.resize == "shortest_edge"

    @property
    def is_identity(self) -> bool:
        """Whether `normalise` leaves the 8-bit values unchanged."""
        return self.scale == 1 and not any(self.mean) and set(self.std) == {1.0}

    @property
    def shape(self) -> tuple[int, int, int]:
        """The tensor's shape without the batch dimension; -1 where it depends on the picture."""
        height, width = (-1, -1) if self.is_free else (self.height, self.width)
        return (3, height, width) if self.layout == "NCHW" else (height, width, 3)


def _floats(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


_READERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "width": int,
    "height": int,
    "resize": str,
    "resize_to": float,
    "longest_edge": int,
    "multiple_of": int,
    "rounding": str,
    "resample": lambda name: Image.Resampling[name.upper()],
    "pad_value": int,
    "scale": float,
    "mean": _floats,
    "std": _floats,
    "channel_order": str,
    "layout": str,
    "max_pixels": int,
}


class Geometry(NamedTuple):
    """Where a picture lies in the tensor, per axis: tensor pixel = picture pixel * scale + pad."""

    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float


def fit(image: Image.Image, recipe: Recipe) -> tuple[npt.NDArray[np.uint8], Geometry]:
    """Bring an RGB picture to the tensor's size by the recipe's rule.

    Returns:
        uint8 [height, width, 3] in RGB, and the picture's place in it.

    """
    if recipe.resize == "shortest_edge_center_crop":
        fitted, geometry = _crop(image, recipe)
    elif recipe.is_free:
        fitted = image.resize(_free_size(image.size, recipe), recipe.resample)
        geometry = Geometry(fitted.width / image.width, fitted.height / image.height, 0.0, 0.0)
    elif recipe.resize == "stretch":
        fitted = image.resize((recipe.width, recipe.height), recipe.resample)
        geometry = Geometry(recipe.width / image.width, recipe.height / image.height, 0.0, 0.0)
    else:
        fitted, geometry = _letterbox(image, recipe)
    return np.asarray(fitted), geometry


def arrange(pixels: npt.NDArray[np.uint8], recipe: Recipe) -> npt.NDArray[np.uint8]:
    """Turn uint8 [height, width, 3] in RGB into the recipe's channel order and layout; values stay the same."""
    if recipe.channel_order == "BGR":
        pixels = pixels[:, :, ::-1]
    if recipe.layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)


def normalise(pixels: npt.NDArray[np.uint8], recipe: Recipe) -> npt.NDArray[np.float32]:
    """Turn uint8 [height, width, 3] in RGB into (x * scale - mean) / std.

    Returns:
        float32 [3, height, width] or [height, width, 3], channels in the recipe's order.

    """
    pixels = arrange(pixels, recipe)  # while the values are bytes: a quarter of the memory traffic of floats
    std = np.asarray(recipe.std)
    factor, offset = (recipe.scale / std).astype(np.float32), (-np.asarray(recipe.mean) / std).astype(np.float32)
    if recipe.layout == "NCHW":
        factor, offset = factor[:, None, None], offset[:, None, None]
    tensor = pixels * factor
    tensor += offset
    return tensor


def _letterbox(image: Image.Image, recipe: Recipe) -> tuple[Image.Image, Geometry]:
    """Resize the whole picture into the tensor, sides in proportion, and fill the rest with one grey level.

    `letterbox` places the picture at the top left and rounds its sides down. `letterbox_center` centres the picture and
    rounds its sides to the nearest pixel; an odd pixel of padding goes to the right or the bottom, as in Ultralytics'
    LetterBox.
    """
    scale = min(recipe.width / image.width, recipe.height / image.height)
    centred = recipe.resize == "letterbox_center"
    whole = round if centred else int
    width, height = max(1, whole(image.width * scale)), max(1, whole(image.height * scale))
    left, top = ((recipe.width - width) // 2, (recipe.height - height) // 2) if centred else (0, 0)
    canvas = Image.new("RGB", (recipe.width, recipe.height), (recipe.pad_value,) * 3)
    canvas.paste(image.resize((width, height), recipe.resample), (left, top))
    return canvas, Geometry(width / image.width, height / image.height, float(left), float(top))


def _crop(image: Image.Image, recipe: Recipe) -> tuple[Image.Image, Geometry]:
    """Resize the shorter side to `resize_to` and crop the middle.

    The whole picture is resized before the crop, as in training. Resizing only the cropped region is faster, but Pillow
    then rounds some pixels to another grey level, which moved scores by 0.0013. A very long picture is cut to its
    middle first: 1 x 10,000 pixels would otherwise be resized to 650 million.
    """
    middle, left, top = _middle(image)
    width, height = _sides(middle.size, recipe.resize_to, recipe.rounding)
    x, y = (width - recipe.width) // 2, (height - recipe.height) // 2
    fitted = middle.resize((width, height), recipe.resample).crop((x, y, x + recipe.width, y + recipe.height))
    scale_x, scale_y = width / middle.width, height / middle.height
    return fitted, Geometry(scale_x, scale_y, -x - left * scale_x, -y - top * scale_y)


def _sides(size: tuple[int, int], shorter: float, rounding: str) -> tuple[int, int]:
    """Return width and height that have the shorter side at `shorter` and keep the proportions."""
    short, long = min(size), max(size)
    whole = int if rounding == "down" else round
    sides = whole(shorter), whole(shorter * long / short)
    return sides if size[0] <= size[1] else sides[::-1]


def _free_size(size: tuple[int, int], recipe: Recipe) -> tuple[int, int]:
    """Return width and height with the shorter side at `resize_to`, or smaller so that the longer side keeps its limit.

    Source: `get_size_with_aspect_ratio` of transformers; its order of operations is kept, because it decides the last
    pixel.
    """
    short, long = min(size), max(size)
    shorter = wanted = recipe.resize_to
    if long / short * shorter > recipe.longest_edge:
        wanted = recipe.longest_edge * short / long
        shorter = round(wanted)
    sides = [max(1, round(shorter)), int(wanted * long / short)]
    sides = [max(recipe.multiple_of, side - side % recipe.multiple_of) for side in sides]
    return (sides[0], sides[1]) if size[0] <= size[1] else (sides[1], sides[0])


def _middle(image: Image.Image) -> tuple[Image.Image, int, int]:
    """Return the middle of a picture, at most `_MAX_RATIO` times as long as wide, and its left and top offset."""
    limit = _MAX_RATIO * min(image.size)
    if max(image.size) <= limit:
        return image, 0, 0
    width, height = min(image.width, limit), min(image.height, limit)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height)), left, top
