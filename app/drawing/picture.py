"""A detection's answer as a picture: the upright image with boxes, labels and scores drawn on it.

    encoded image -> upright sRGB -> 16 megapixels at most -> boxes and labels (`app.drawing.marks`) -> JPEG or PNG

The image is a stranger's: this runs in a process of its own (`app.drawing.process`) with limits on CPU time and memory.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms

from app.drawing.contract import MAX_DRAWN_PIXELS
from app.drawing.marks import mark
from app.errors import ImageTooLargeError, ImageUndecodableError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# The default of `max_pixels` in model.yaml. A larger image gets no picture answer, even from a model that accepts it.
MAX_PIXELS = 50_000_000
JPEG_SIDE = 65_500  # the encoder's limit
# EXIF orientation (EXIF 2.32, tag 0x0112) -> what turns a stored picture upright. Not Pillow's `exif_transpose`: it
# rewrites the metadata as well, and fails where other tags are broken.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def draw(image: bytes, predictions: Sequence[dict[str, Any]], kind: str) -> bytes:
    """Return the picture answer; see `Drawing.picture`."""
    picture = upright(image)
    picture, predictions = scaled(picture, predictions)
    if kind == "image/jpeg" and max(picture.size) > JPEG_SIDE:
        raise ImageTooLargeError(f"A JPEG may have {JPEG_SIDE} pixels per side at most; ask for image/png.")
    mark(picture, predictions)
    picture.info.clear()  # the sender's profile, texts and dates are not sent on
    buffer = io.BytesIO()
    if kind == "image/jpeg":
        picture.save(buffer, "JPEG", quality=90, subsampling="4:4:4")  # else thin coloured lines would fade
    else:
        picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def upright(image: bytes) -> Image.Image:
    """Decode an image as models see it: first frame, EXIF orientation applied, RGB, transparency on white.

    Only the colours differ: a picture with a valid colour profile is converted to sRGB, as viewers show it.
    """
    try:
        opened = Image.open(io.BytesIO(image), formats=FORMATS)
        opened.load()
        return _rgb(_srgb(_turned(opened)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLargeError(f"A picture answer may have {MAX_PIXELS} pixels at most.") from error
    except MemoryError as error:
        raise ImageTooLargeError("Drawing the picture takes too much memory.") from error
    except Exception as error:  # decoders raise nearly anything on broken bytes
        raise ImageUndecodableError("The image cannot be drawn on.") from error


def scaled(picture: Image.Image, predictions: Sequence[dict[str, Any]]) -> tuple[Image.Image, Sequence[dict[str, Any]]]:
    """Return a picture of at most `MAX_DRAWN_PIXELS`, and the predictions with boxes in its pixels."""
    pixels = picture.width * picture.height
    if pixels <= MAX_DRAWN_PIXELS:
        return picture, predictions
    share = math.sqrt(MAX_DRAWN_PIXELS / pixels)
    width, height = (max(1, int(side * share)) for side in picture.size)
    width, height = min(width, MAX_DRAWN_PIXELS // height), min(height, MAX_DRAWN_PIXELS // width)
    by = {"x": width / picture.width, "y": height / picture.height}
    boxes = [{**one, "box": {side: at * by[side[0]] for side, at in one["box"].items()}} for one in predictions]
    return picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0), boxes


def _srgb(image: Image.Image) -> Image.Image:
    """Return an image in sRGB if it has a readable profile for its colour space, else as it is.

    The answer has no profile in either case: viewers treat a picture without a profile as sRGB.
    """
    profile = image.info.get("icc_profile")
    kinds = {"RGB": "RGB ", "RGBA": "RGB ", "CMYK": "CMYK"}
    if not profile or image.mode not in kinds:
        return image
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if given.profile.xcolor_space != kinds[image.mode]:
            return image
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        made = ImageCms.profileToProfile(image, given, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if made is None else made


def _turned(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - broken metadata, sound pixels: shown as stored, as models see it
        return image
    turn = TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        values = np.asarray(image, np.float32)
        return Image.fromarray((values / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")  # a copy of 50 megapixels is 150 MB
    pixels = image.convert("RGBA")
    canvas = Image.new("RGB", pixels.size, "white")
    canvas.paste(pixels, mask=pixels)
    return canvas
