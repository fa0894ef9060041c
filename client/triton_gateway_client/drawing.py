"""Draws captions, boxes and labels on pictures, with Pillow. Lines and letters scale with the picture.

It does not know the result types: they pass the text and the boxes to draw.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import ImageDraw, ImageFont

from triton_gateway_client import images

if TYPE_CHECKING:
    import PIL.Image

    from triton_gateway_client.images import ImageInput

Colour = tuple[int, int, int]

MIN_LETTERS, LETTERS = 11, 1 / 32
"""Height of letters: the minimum in pixels, and the share of the picture's shorter side."""
MIN_LINE, LINE = 2, 1 / 250
"""Width of lines: the minimum in pixels, and the share of the picture's shorter side."""
GOLDEN = 0.618034
"""Fraction of the golden ratio; hues this far apart on the circle give consecutive class ids distinct colours."""
CAPTION: Colour = (32, 32, 32)


class Mark(NamedTuple):
    """One object to draw: its box (left, top, right, bottom), its label, and the class that gives the colour."""

    corners: tuple[float, float, float, float]
    text: str
    class_id: int


def captioned(image: ImageInput, lines: Iterable[str]) -> PIL.Image.Image:
    """Return a copy of the image with these lines in its upper left corner."""
    picture = images.opened(image)
    pen = _Pen(picture)
    top = 0
    for line in lines:
        top += pen.label(0, top, line, CAPTION)
    return picture


def framed(image: ImageInput, size: tuple[int, int], marks: Sequence[Mark]) -> PIL.Image.Image:
    """Return a copy of the image with a box and a label for each mark, the first on top.

    `size` is the width and height that the marks' corners refer to.
    """
    picture = images.opened(image)
    pen = _Pen(picture)
    across, down = picture.width / size[0], picture.height / size[1]
    for (left, top, right, bottom), _, class_id in reversed(marks):
        pen.box((left * across, top * down, right * across, bottom * down), colour_of(class_id))
    for (left, top, _, _), text, class_id in marks:
        pen.label(round(left * across), round(top * down) - pen.height, text, colour_of(class_id))
    return picture


def colour_of(class_id: int) -> Colour:
    """Return the colour of a class, always the same one."""
    red, green, blue = colorsys.hsv_to_rgb(class_id * GOLDEN % 1, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def ink_on(colour: Colour) -> Colour:
    """Return black or white, whichever contrasts more with a colour (WCAG 2.2, relative luminance of sRGB)."""
    red, green, blue = (c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (0, 0, 0) if (luminance + 0.05) ** 2 > 1.05 * 0.05 else (255, 255, 255)


class _Pen:
    """Draws on one picture."""

    def __init__(self, picture: PIL.Image.Image) -> None:
        self._size = picture.size
        self._draw = ImageDraw.Draw(picture)
        side = min(picture.size)
        self._line = max(MIN_LINE, round(side * LINE))
        letters = max(MIN_LETTERS, round(side * LETTERS))
        self._font = ImageFont.load_default(letters)
        self._margin = max(1, letters // 5)
        self._written: list[tuple[int, int, int, int]] = []
        _, top, _, bottom = self._draw.textbbox((0, 0), "Ag", font=self._font)
        self._rise = top
        self.height = round(bottom - top) + 2 * self._margin
        """Height of a label in pixels."""

    def box(self, corners: tuple[float, float, float, float], colour: Colour) -> None:
        """Draw a frame inside these corners, at least one pixel wide and high."""
        left, top, right, bottom = (round(value) for value in corners)
        right, bottom = max(left, right - 1), max(top, bottom - 1)
        self._draw.rectangle((left, top, right, bottom), outline=colour, width=self._line)

    def label(self, left: int, top: int, text: str, colour: Colour) -> int:
        """Write a label, moved into the picture and, where there is room, below other labels; return its height."""
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
        """Return a test whether a label between these columns, starting at a given row, covers no other label."""
        beside = [(low, high) for start, low, end, high in self._written if start < right and left < end]
        return lambda top: all(high <= top or top + self.height <= low for low, high in beside)
