"""An upright RGB picture -> a network's input tensor, and the geometry that maps it back to the picture's pixels.

    picture --fit--> uint8 [height, width, channels] + Geometry --normalise--> float32 tensor

`fit` applies one of seven resize rules, `normalise` computes (x * scale - mean) / std. Both follow a `Recipe`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from stages.recipe import Recipe
from stages.resampling import SUPPORT, resize

DATA_TYPES: Final[Mapping[str, npt.DTypeLike]] = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8}

# Ratio of the longer to the shorter side above which a picture is cut to its middle before it is resized and cropped.
_MAX_RATIO: Final = 8

# Longer side, in pixels, up to which `letterbox_square` pads before it resizes. Above it, the padding would take more
# memory than the picture.
_MAX_PADDED: Final = 8192


class Geometry(NamedTuple):
    """Where a picture lies in the tensor, per axis: tensor pixel = picture pixel * scale + pad."""

    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float


def fit(image: Image.Image, recipe: Recipe) -> tuple[npt.NDArray[np.uint8], Geometry]:
    """Bring an RGB picture to the tensor's size by the recipe's rule.

    Returns:
        uint8 [height, width, channels], in RGB or grey, and the picture's place in it.

    """
    if recipe.channel_order == "GREY":
        image = image.convert("L")
    match recipe.resize:
        case "shortest_edge_center_crop":
            fitted, geometry = _crop(image, recipe)
        case "stretch_center_crop":
            side = int(recipe.resize_to)
            fitted, geometry = _cut(*_stretch(image, (side, side), recipe), recipe)
        case "shortest_edge":
            fitted, geometry = _stretch(image, _free_size(image.size, recipe), recipe)
        case "stretch":
            fitted, geometry = _stretch(image, (recipe.width, recipe.height), recipe)
        case "letterbox_square":
            fitted, geometry = _square(image, recipe)
        case _:
            fitted, geometry = _letterbox(image, recipe)
    return np.asarray(fitted).reshape(fitted.height, fitted.width, recipe.channels), geometry


def arrange(pixels: npt.NDArray[np.uint8], recipe: Recipe) -> npt.NDArray[np.uint8]:
    """Turn uint8 [height, width, channels] into the recipe's channel order and layout; values stay the same."""
    if recipe.channel_order == "BGR":
        pixels = pixels[:, :, ::-1]
    if recipe.layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)


def normalise(pixels: npt.NDArray[np.uint8], recipe: Recipe) -> npt.NDArray[np.float32]:
    """Turn uint8 [height, width, channels] into (x * scale - mean) / std.

    Returns:
        float32 [channels, height, width] or [height, width, channels], channels in the recipe's order.

    """
    pixels = arrange(pixels, recipe)  # while the values are bytes: a quarter of the memory traffic of floats
    std = np.asarray(recipe.std)
    factor, offset = (recipe.scale / std).astype(np.float32), (-np.asarray(recipe.mean) / std).astype(np.float32)
    if recipe.layout == "NCHW":
        factor, offset = factor[:, None, None], offset[:, None, None]
    tensor = pixels * factor
    tensor += offset
    return tensor


def _stretch(image: Image.Image, size: tuple[int, int], recipe: Recipe) -> tuple[Image.Image, Geometry]:
    fitted = resize(image, size, recipe.resample)
    return fitted, Geometry(size[0] / image.width, size[1] / image.height, 0.0, 0.0)


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
    fitted, geometry = _stretch(image, (width, height), recipe)
    canvas = _canvas(image.mode, (recipe.width, recipe.height), recipe)
    canvas.paste(fitted, (left, top))
    return canvas, geometry._replace(pad_x=float(left), pad_y=float(top))


def _square(image: Image.Image, recipe: Recipe) -> tuple[Image.Image, Geometry]:
    """Pad the picture to a square at its right or bottom, then resize the square.

    Only the part of the padding that the picture's border mixes with is made; the rest is filled in afterwards.
    """
    side, longer = recipe.width, max(image.size)
    if longer > _MAX_PADDED:
        return _letterbox(image, recipe)
    factor = longer / side
    reach = SUPPORT * max(1.0, factor)
    made = [min(side, math.ceil((length + reach) / factor)) for length in image.size]
    needed = [min(longer, math.ceil(length * factor + reach) + 1) for length in made]
    padded = _canvas(image.mode, (needed[0], needed[1]), recipe)
    padded.paste(image, (0, 0))
    part = (made[0] * factor, made[1] * factor) if min(made) < side else (float(longer), float(longer))
    canvas = _canvas(image.mode, (side, side), recipe)
    canvas.paste(resize(padded, (made[0], made[1]), recipe.resample, part), (0, 0))
    return canvas, Geometry(side / longer, side / longer, 0.0, 0.0)


def _canvas(mode: str, size: tuple[int, int], recipe: Recipe) -> Image.Image:
    return Image.new(mode, size, (recipe.pad_value,) * recipe.channels)


def _crop(image: Image.Image, recipe: Recipe) -> tuple[Image.Image, Geometry]:
    """Resize the shorter side to `resize_to` and crop the middle.

    The whole picture is resized before the crop, as in training. Resizing only the cropped region is faster, but Pillow
    then rounds some pixels to another grey level, which moved scores by 0.0013. A very long picture is cut to its
    middle first: 1 x 10,000 pixels would otherwise be resized to 650 million.
    """
    middle, left, top = _middle(image)
    fitted, geometry = _cut(*_stretch(middle, _sides(middle.size, recipe.resize_to, recipe.rounding), recipe), recipe)
    scale_x, scale_y, x, y = geometry
    return fitted, Geometry(scale_x, scale_y, x - left * scale_x, y - top * scale_y)


def _cut(image: Image.Image, geometry: Geometry, recipe: Recipe) -> tuple[Image.Image, Geometry]:
    """Crop the middle of a resized picture."""
    x, y = (
        _corner(side - wanted, recipe.rounding)
        for side, wanted in zip(image.size, (recipe.width, recipe.height), strict=True)
    )
    cropped = image.crop((x, y, x + recipe.width, y + recipe.height))
    return cropped, geometry._replace(pad_x=float(-x), pad_y=float(-y))


def _corner(rest: int, rounding: str) -> int:
    """Return how many of the pixels that a crop leaves out lie before it: the smaller half, or as torchvision.

    Source: `center_crop` of torchvision.transforms.functional, which is `round(rest / 2.0)`, half to even.
    """
    return round(rest / 2) if rounding == "torchvision" else rest // 2


def _sides(size: tuple[int, int], shorter: float, rounding: str) -> tuple[int, int]:
    """Return width and height that have the shorter side at `shorter` and keep the proportions."""
    short, long = min(size), max(size)
    whole = round if rounding == "nearest" else int
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
