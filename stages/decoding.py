"""The image of a request -> an upright RGB picture, or a refusal.

The bytes are not trusted. Their cost is computed before Pillow sees them (`stages.budget`), the size in the header is
compared with the limit before anything is decoded, and every exception of a decoder is a fault of the bytes, never of
the service:

    encoded bytes --open_encoded--+
                                  +--> image, not yet decoded --upright_rgb--> picture
    raw pixels ----open_raw-------+
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError

from stages.budget import FORMATS, MAX_METADATA
from stages.serving import RefusalError

# The operation that turns a stored picture upright, by EXIF orientation (EXIF 2.32, tag 0x0112). 1 is upright already.
_TRANSPOSE: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Raw pixels: `pixel_format` of the request -> Pillow's mode, Pillow's raw decoder, bytes per pixel.
_LAYOUTS: Final = {"RGB": ("RGB", "RGB", 3), "BGR": ("RGB", "BGR", 3), "RGBA": ("RGBA", "RGBA", 4), "L": ("L", "L", 1)}
_RAW_OPTIONS: Final = ("pixel_format", "width", "height")

# Pillow's modes of TIFFs that do not say which value is white. "I" is grey of 32 bits, or of 16 bits with a sign.
_MODES_WITHOUT_WHITE: Final = {"F": "floating-point pixels", "I": "signed or 32-bit pixels"}

logger = logging.getLogger(__name__)


def prepare_pillow(max_pixels: int) -> None:
    """Configure Pillow for a process that decodes untrusted images of up to `max_pixels`.

    Pillow has one limit per process: it warns above the limit and raises above twice the limit. It is set to
    `max_pixels`, and guards sizes that only show while decoding (TIFF tiles, GIF frames, the WebP canvas). Warnings are
    off, because senders of images must not write into the log. The plugins of `FORMATS` are loaded now, so that the
    first request does not wait for them; no others are ever loaded.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels
    PngImagePlugin.MAX_TEXT_CHUNK = MAX_METADATA  # limits a colour profile too; Pillow's default is 1 MiB
    PngImagePlugin.MAX_TEXT_MEMORY = MAX_METADATA  # characters of all texts; Pillow's default is 64 Mi
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    load_plugins()


def load_plugins() -> None:
    """Import Pillow's plugins for `FORMATS`, and keep it from importing any other."""
    names = {"JPEG": "Jpeg", "PNG": "Png", "WEBP": "WebP", "GIF": "Gif", "BMP": "Bmp", "TIFF": "Tiff", "AVIF": "Avif"}
    for name in FORMATS:
        import_module(f"PIL.{names[name]}ImagePlugin")
    # A JPEG of several pictures is read as its first; Pillow would load the plugin MPO for the others.
    Image.register_open("JPEG", JpegImagePlugin.JpegImageFile, lambda prefix: prefix.startswith(b"\xff\xd8\xff"))
    Image._initialized = 2  # as `Image.init` does once all plugins are loaded; Pillow has no switch for fewer


def is_raw(options: Mapping[str, Any]) -> bool:
    """Tell whether a request's parameters describe raw pixels."""
    return any(name in options for name in _RAW_OPTIONS)


def open_encoded(data: bytes, max_pixels: int, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Read the header of an encoded image in one of `formats`; nothing is decoded yet.

    Raises:
        RefusalError: `image_undecodable` when no format has a readable header in `data`, `image_too_large` when the
            header promises more than `max_pixels` pixels or there is not enough memory.

    """
    if not data:
        raise RefusalError("image_undecodable", "The image is empty.")
    try:
        image = Image.open(io.BytesIO(data), formats=tuple(formats))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(max_pixels) from error
    except UnidentifiedImageError as error:
        names = ", ".join(FORMATS)
        raise RefusalError("image_undecodable", f"The data is not an image in one of the formats {names}.") from error
    except MemoryError as error:
        raise _too_little_memory() from error
    except Exception as error:  # decoders raise nearly every kind of exception on broken bytes
        raise _damaged(error) from error
    _check_size(image.size, max_pixels)
    return image


def upright_rgb(image: Image.Image, alpha: str = "white") -> Image.Image:
    """Decode the first frame of an opened image: upright by its EXIF orientation, mode RGB.

    `alpha` says what becomes of transparency: `white` puts white behind it, `drop` keeps the stored colours.

    Grey of 16 bits is scaled to 8; CMYK is converted without a colour profile.

    Raises:
        RefusalError: `image_undecodable` when the data is damaged, cut short or without a defined brightness range,
            `image_too_large` when there is not enough memory.

    """
    try:
        image.load()
        return _rgb(_turn_upright(image), alpha)
    except RefusalError:
        raise
    except MemoryError as error:
        raise _too_little_memory() from error
    except Exception as error:  # see `open_encoded`
        raise _damaged(error) from error


def open_raw(data: bytes, options: Mapping[str, Any], max_pixels: int) -> Image.Image:
    """Make an image from raw pixels, row by row from the top, 8 bits a channel, without padding.

    Args:
        data: height * width * channels bytes.
        options: `pixel_format` (RGB, BGR, RGBA or L), `width`, `height`.
        max_pixels: the limit on width * height.

    Raises:
        RefusalError: `invalid_parameter` or `image_too_large`.

    """
    layout = options.get("pixel_format")
    if not isinstance(layout, str) or layout not in _LAYOUTS:
        raise RefusalError("invalid_parameter", f"pixel_format must be one of {', '.join(_LAYOUTS)}.")
    mode, decoder, channels = _LAYOUTS[layout]
    size = (_side(options, "width"), _side(options, "height"))
    _check_size(size, max_pixels)
    expected = size[0] * size[1] * channels
    if len(data) != expected:
        sentence = f"{size[0]} x {size[1]} pixels of {layout} take {expected} bytes, but {len(data)} were sent."
        raise RefusalError("invalid_parameter", sentence)
    return Image.frombytes(mode, size, data, "raw", decoder)


def _side(options: Mapping[str, Any], name: str) -> int:
    value = options.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RefusalError("invalid_parameter", f"Raw pixels need a {name} of 1 or more.")
    return value


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    if size[0] < 1 or size[1] < 1:
        raise RefusalError("image_undecodable", "The image has no pixels.")
    check_pixels(size[0] * size[1], max_pixels)


def check_pixels(pixels: int, max_pixels: int) -> None:
    """Raise RefusalError, `image_too_large`, when there are more pixels than `max_pixels`."""
    if pixels > max_pixels:
        raise _too_many_pixels(max_pixels)


def _too_many_pixels(max_pixels: int) -> RefusalError:
    return RefusalError("image_too_large", f"The image has more than {max_pixels} pixels.")


def _too_little_memory() -> RefusalError:
    return RefusalError("image_too_large", "Decoding the image takes more memory than one image may use.")


def _damaged(error: Exception) -> RefusalError:
    logger.debug("undecodable image: %r", error)
    return RefusalError("image_undecodable", "The image is damaged or cut short.")


def _turn_upright(image: Image.Image) -> Image.Image:
    """Turn a decoded image upright. Pillow turns a TIFF itself while decoding, and then drops its orientation tag."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception as error:  # noqa: BLE001 - broken metadata beside sound pixels: keep the stored orientation, as viewers do
        logger.debug("unreadable EXIF: %r", error)
        return image
    method = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _rgb(image: Image.Image, alpha: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return _grey16(image).convert("RGB")
    if image.mode in _MODES_WITHOUT_WHITE:
        kind = _MODES_WITHOUT_WHITE[image.mode]
        raise RefusalError("image_undecodable", f"Images of {kind} have no defined brightness range.")
    if not image.has_transparency_data:
        return image.convert("RGB")
    pixels = image.convert("RGBA")
    if alpha == "drop":
        return pixels.convert("RGB")
    canvas = Image.new("RGB", pixels.size, "white")
    canvas.paste(pixels, mask=pixels)
    return canvas


def _grey16(image: Image.Image) -> Image.Image:
    """Scale grey of 16 bits to 8: round(value / 257), so that 0 stays 0 and 65535 becomes 255."""
    values = np.asarray(image)
    high, low = (values >> 8).astype(np.int16), (values & 0xFF).astype(np.int16)
    over = low - high  # value = 257 * high + over
    grey = (high + (over > 128) - (over < -128)).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey)
