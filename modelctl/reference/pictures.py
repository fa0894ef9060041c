"""Makes the tensor of a picture that a spec's network takes, with Pillow and numpy."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from modelctl.models.steps import ImagePreprocess
from modelctl.reference import opencv

Array = npt.NDArray[Any]
DTYPES: dict[str, npt.DTypeLike] = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8}


@dataclass(frozen=True)
class Placement:
    """Where the picture lies in the tensor: tensor pixel = picture pixel x scale + offset, and both sizes."""

    scale: tuple[float, float]
    offset: tuple[float, float]
    picture: tuple[int, int]
    tensor: tuple[int, int]


MAX_PADDED = 8192
"""The longest side that `letterbox_square` pads first; it resizes a longer picture first and pads then."""


def upright(data: bytes, alpha: str = "white") -> Image.Image:
    """Decode an image into RGB, turned upright by its EXIF data; with white behind transparent pixels, or as stored."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if alpha == "drop":
        return image.convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def prepare(data: bytes, settings: ImagePreprocess, dtype: str) -> tuple[Array, Placement]:
    """Return the tensor [1, ...] of an encoded image, and where the picture lies in it."""
    image = upright(data, settings.alpha)
    grey = settings.channel_order == "GREY"
    fitted, scale, offset = _fit(image.convert("L") if grey else image, settings)
    values = np.asarray(fitted).reshape(fitted.height, fitted.width, settings.channels)
    if dtype != "UINT8":
        mean, std = (np.array(_channels(settings, each)) for each in (settings.mean, settings.std))
        values = (values * settings.scale - mean) / std
    if settings.channel_order == "BGR":
        values = values[:, :, ::-1]
    if settings.layout == "NCHW":
        values = values.transpose(2, 0, 1)
    placement = Placement(scale, offset, image.size, fitted.size)
    return np.ascontiguousarray(values[None]).astype(DTYPES[dtype]), placement


def _channels(settings: ImagePreprocess, values: list[float]) -> list[float]:
    """Return values of the tensor's channels in the order RGB."""
    return values[::-1] if settings.channel_order == "BGR" else values


def _fit(image: Image.Image, settings: ImagePreprocess) -> tuple[Image.Image, tuple[float, float], tuple[float, float]]:
    """Return the picture in the tensor's size, and by what factors and offsets it lies there."""
    width, height = settings.width or 0, settings.height or 0
    rule = settings.resize
    if rule == "letterbox_square" and max(image.size) <= MAX_PADDED:
        side = max(image.size)
        image = _padded(image, (side, side), (0, 0), settings)
        return _resized(image, (width, height), settings), (width / side, height / side), (0, 0)
    size, corner = _place(image, settings)
    made = _resized(image, size, settings)
    scale = (size[0] / image.width, size[1] / image.height)
    if made.size == (width, height) or rule == "shortest_edge":
        return made, scale, corner
    if rule.endswith("center_crop"):
        left, top = -corner[0], -corner[1]
        return made.crop((left, top, left + width, top + height)), scale, corner
    return _padded(made, (width, height), corner, settings), scale, corner


def _place(image: Image.Image, settings: ImagePreprocess) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size to which the whole picture is resized, and where its corner lies in the tensor."""
    width, height = settings.width or 0, settings.height or 0
    if settings.resize == "stretch":
        return (width, height), (0, 0)
    if settings.resize == "shortest_edge":
        return _shortest_edge(image, settings), (0, 0)
    if settings.resize.endswith("center_crop"):
        side = int(settings.resize_to or 0)
        squeezed = settings.resize == "stretch_center_crop"
        size = (side, side) if squeezed else _proportional(image, settings.resize_to or 0, settings.rounding)
        left, top = (_before_crop(size[0], width, settings.rounding), _before_crop(size[1], height, settings.rounding))
        return size, (-left, -top)
    ratio = min(width / image.width, height / image.height)
    centred = settings.resize == "letterbox_center"
    whole = round if centred else int
    size = (max(1, whole(image.width * ratio)), max(1, whole(image.height * ratio)))
    return size, ((width - size[0]) // 2, (height - size[1]) // 2) if centred else (0, 0)


def _before_crop(side: int, crop: int, rounding: str) -> int:
    """Return where a centred crop begins.

    Source: `int(round((image_height - crop_height) / 2.0))` in `center_crop` of torchvision.transforms.functional;
    `(orig_height - crop_height) // 2` in `center_crop` of transformers.image_transforms.
    """
    return round((side - crop) / 2.0) if rounding == "torchvision" else (side - crop) // 2


def _resized(image: Image.Image, size: tuple[int, int], settings: ImagePreprocess) -> Image.Image:
    if not settings.resample.startswith("opencv_"):
        return image.resize(size, Image.Resampling[settings.resample.upper()])
    pixels = np.asarray(image).reshape(image.height, image.width, -1)
    made = (opencv.linear if settings.resample == "opencv_linear" else opencv.area)(pixels, size)
    return Image.fromarray(made if made.shape[2] == 3 else made[:, :, 0])


def _padded(
    image: Image.Image, size: tuple[int, int], corner: tuple[int, int], settings: ImagePreprocess
) -> Image.Image:
    canvas = Image.new(image.mode, size, (settings.pad_value,) * settings.channels)
    canvas.paste(image, corner)
    return canvas


def _proportional(image: Image.Image, shorter: float, rounding: str) -> tuple[int, int]:
    whole = round if rounding == "nearest" else int
    long = whole(shorter * max(image.size) / min(image.size))
    return (int(shorter), long) if image.width <= image.height else (long, int(shorter))


def _shortest_edge(image: Image.Image, settings: ImagePreprocess) -> tuple[int, int]:
    """Return the size by the rule of DETR's authors: the shorter side as asked, unless the longer gets too long."""
    short, long = min(image.size), max(image.size)
    limit = settings.longest_edge or 0
    shorter = wanted = settings.resize_to or 0
    if long / short * shorter > limit:
        wanted = limit * short / long
        shorter = round(wanted)
    sides = [round(shorter), int(wanted * long / short)]
    sides = [side - side % settings.multiple_of for side in sides]
    return (sides[0], sides[1]) if image.width <= image.height else (sides[1], sides[0])
