"""The kinds of image that calls accept, and how each becomes the bytes of an image file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import PIL.Image

PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
"""Modes that PNG can hold; other modes become RGBA where they have transparency, else RGB."""
ALPHA_MODES = ("PA", "La", "RGBa")


class Array(Protocol):
    """An array such as numpy's: uint8 of shape (height, width), (height, width, 3) RGB or (height, width, 4) RGBA."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """The description that NumPy's array interface protocol defines."""


ImageInput: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | PIL.Image.Image | Array"
"""A path, the bytes of an image file, a file opened for reading bytes, a PIL image, or an array."""


def encoded(image: ImageInput) -> bytes:
    """Return the bytes of an image file. PIL images and arrays become PNG, which is lossless and needs Pillow.

    Raises:
        OSError: when a file cannot be read.
        TypeError, ValueError: when the argument is not an image.

    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        raise ValueError("that is a URL, not a path: give it as image_url")
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if hasattr(image, "read"):
        content = image.read()
        if not isinstance(content, bytes):
            raise TypeError("the file must be opened for reading bytes: open(path, 'rb')")
        return content
    return _png(_picture(image))


def opened(image: ImageInput) -> PIL.Image.Image:
    """Return a new picture, upright and in RGB, of any kind of image. Needs Pillow.

    Raises:
        PIL.UnidentifiedImageError: when Pillow cannot read the bytes.

    """
    from PIL import Image, ImageOps

    is_file = isinstance(image, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(image, "read")
    picture = Image.open(io.BytesIO(encoded(image))) if is_file else _picture(image)
    picture = ImageOps.exif_transpose(picture)
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")  # as the gateway does with transparency
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _picture(image: Any) -> PIL.Image.Image:
    try:
        from PIL import Image
    except ImportError as error:
        raise TypeError(
            f"{type(image).__name__} is neither a path, bytes nor a file; PIL images and arrays need Pillow: "
            "pip install 'triton-gateway-client[images]'"
        ) from error
    if isinstance(image, Image.Image):
        return image
    interface = getattr(image, "__array_interface__", None)
    if interface is None:
        raise TypeError(f"{type(image).__name__} is not a path, bytes, a file, a PIL image or an array")
    shape = interface["shape"]
    if interface["typestr"] != "|u1" or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise TypeError(
            "an array must be uint8 of shape (height, width), (height, width, 3) RGB or (height, width, 4) RGBA, "
            f"not {interface['typestr']} of {shape}"
        )
    return Image.fromarray(image)


def _png(picture: PIL.Image.Image) -> bytes:
    from PIL import ImageOps

    # Turned first, because Pillow writes a PNG without the orientation.
    picture = ImageOps.exif_transpose(picture)
    if picture.mode not in PNG_MODES:
        picture = picture.convert("RGBA" if picture.mode in ALPHA_MODES else "RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
