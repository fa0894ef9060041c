"""Makes the tensor of a picture that a spec's network takes, with Pillow and numpy."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from modelctl.models.steps import ImagePreprocess

Array = npt.NDArray[Any]
DTYPES: dict[str, npt.DTypeLike] = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8}


@dataclass(frozen=True)
class Placement:
    """Where the picture lies in the tensor: tensor pixel = picture pixel x scale + offset, and both sizes."""

    scale: tuple[float, float]
    offset: tuple[float, float]
    picture: tuple[int, int]
    tensor: tuple[int, int]


def upright(data: bytes) -> Image.Image:
    """Decode an image into RGB, turned upright by its EXIF data, with white behind transparent pixels."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def prepare(data: bytes, settings: ImagePreprocess, dtype: str) -> tuple[Array, Placement]:
    """Return the tensor [1, ...] of an encoded image, and where the picture lies in it."""
    image = upright(data)
    fitted, scale, offset = _fit(image, settings)
    values = np.asarray(fitted)
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
    method = Image.Resampling[settings.resample.upper()]
    width, height = settings.width or 0, settings.height or 0
    if settings.resize == "stretch":
        return image.resize((width, height), method), (width / image.width, height / image.height), (0, 0)
    if settings.resize == "shortest_edge":
        size = _shortest_edge(image, settings)
        return image.resize(size, method), (size[0] / image.width, size[1] / image.height), (0, 0)
    if settings.resize == "shortest_edge_center_crop":
        size = _proportional(image, settings.resize_to or 0, settings.rounding)
        left, top = (size[0] - width) // 2, (size[1] - height) // 2
        cut = image.resize(size, method).crop((left, top, left + width, top + height))
        return cut, (size[0] / image.width, size[1] / image.height), (-left, -top)
    ratio = min(width / image.width, height / image.height)
    centred = settings.resize == "letterbox_center"
    whole = round if centred else int
    size = (max(1, whole(image.width * ratio)), max(1, whole(image.height * ratio)))
    corner = ((width - size[0]) // 2, (height - size[1]) // 2) if centred else (0, 0)
    canvas = Image.new("RGB", (width, height), (settings.pad_value,) * 3)
    canvas.paste(image.resize(size, method), corner)
    return canvas, (size[0] / image.width, size[1] / image.height), corner


def _proportional(image: Image.Image, shorter: float, rounding: str) -> tuple[int, int]:
    whole = int if rounding == "down" else round
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
