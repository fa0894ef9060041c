"""Draws results on pictures, with Pillow. Lines and letters are as large as the picture asks for."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import ImageDraw, ImageFont

from triton_gateway_client import images

if TYPE_CHECKING:
    import PIL.Image

    from triton_gateway_client.images import ImageInput
    from triton_gateway_client.results import Classification, Detections

Colour = tuple[int, int, int]

LEAST_LETTERS, LETTERS = 11, 1 / 32
"""Height of letters: pixels at least, and as a share of the picture's shorter side."""
LEAST_LINE, LINE = 2, 1 / 250
"""Width of lines, likewise."""
GOLDEN = 0.618034
"""Steps of this share around the circle of hues never come close to each other soon."""
CAPTION: Colour = (32, 32, 32)


def classification(result: Classification, image: ImageInput) -> PIL.Image.Image:
    """Return a copy of the image with one line a class in its upper left corner."""
    picture = images.opened(image)
    pen = _Pen(picture)
    top = 0
    for prediction in result.predictions:
        top += pen.label(0, top, f"{prediction.label} {_percent(prediction.score)}", CAPTION)
    return picture


def detections(result: Detections, image: ImageInput) -> PIL.Image.Image:
    """Return a copy of the image with all boxes, the best on top."""
    picture = images.opened(image)
    pen = _Pen(picture)
    across, down = picture.width / result.image.width, picture.height / result.image.height
    for found in reversed(result.predictions):
        box, colour = found.box, colour_of(found.class_id)
        pen.box((box.xmin * across, box.ymin * down, box.xmax * across, box.ymax * down), colour)
    for found in result.predictions:
        text = f"{found.label} {_percent(found.score)}"
        left, top = found.box.xmin * across, found.box.ymin * down
        pen.label(round(left), round(top) - pen.height, text, colour_of(found.class_id))
    return picture


def colour_of(class_id: int) -> Colour:
    """Return the colour of a class: always the same one."""
    red, green, blue = colorsys.hsv_to_rgb(class_id * GOLDEN % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def ink_on(colour: Colour) -> Colour:
    """Return black or white, whichever contrasts more with a colour (WCAG 2.2, relative luminance of sRGB)."""
    red, green, blue = (c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)


def _percent(score: float) -> str:
    return f"{score:.0%}"


class _Pen:
    """Draws on one picture."""

    def __init__(self, picture: PIL.Image.Image) -> None:
        self._size = picture.size
        self._draw = ImageDraw.Draw(picture)
        side = min(picture.size)
        self._line = max(LEAST_LINE, round(side * LINE))
        letters = max(LEAST_LETTERS, round(side * LETTERS))
        self._font = ImageFont.load_default(letters)
        self._margin = max(1, letters // 5)
        self._written: list[tuple[int, int, int, int]] = []
        _, top, _, bottom = self._draw.textbbox((0, 0), "Ag", font=self._font)
        self._rise = top
        self.height = round(bottom - top) + 2 * self._margin
        """Of a label, in pixels."""

    def box(self, corners: tuple[float, float, float, float], colour: Colour) -> None:
        """Draw a frame inside these corners, of one pixel at least."""
        left, top, right, bottom = (round(value) for value in corners)
        right, bottom = max(left, right - 1), max(top, bottom - 1)
        self._draw.rectangle((left, top, right, bottom), outline=colour, width=self._line)

    def label(self, left: int, top: int, text: str, colour: Colour) -> int:
        """Write a label, moved into the picture, and down past others where there is room; return its height."""
        width = round(self._draw.textlength(text, font=self._font)) + 2 * self._margin
        left = max(0, min(left, self._size[0] - width))
        top = max(0, min(top, self._size[1] - self.height))
        top = next(filter(self._is_free(left, left + width), range(top, self._size[1] - self.height, self.height)), top)
        self._written.append((left, top, left + width, top + self.height))
        self._draw.rectangle((left, top, left + width - 1, top + self.height - 1), fill=colour)
        at = (left + self._margin, top + self._margin - self._rise)
        self._draw.text(at, text, font=self._font, fill=ink_on(colour))
        return self.height

    def _is_free(self, left: int, right: int) -> Callable[[int], bool]:
        """Return what tells whether a label between these columns and from a given row on would cover no other."""
        beside = [(low, high) for start, low, end, high in self._written if start < right and left < end]
        return lambda top: all(high <= top or top + self.height <= low for low, high in beside)
