"""Boxes and labels on a picture: boxes, the best one last -> label plates that do not hide each other.

Line width and text follow the picture's size, so that a thumbnail and a photograph of 16 megapixels read alike.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

SMALLEST_TEXT = 10  # pixels; below that letters run together
PLATE_SHARE = 4  # a plate hides a quarter of the picture at most
# One colour a class, twelve in turn, the playground's too: hues of OKLCH 150 degrees apart at three lightnesses.
COLOURS = (
    *("#ff645f", "#07e4be", "#b243ba", "#9ca903", "#a8c4fe", "#b85f05"),
    *("#0db3c1", "#ffa5c8", "#019427", "#a884ff", "#f6ba00", "#0584b8"),
)

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, right and bottom not included."""


def mark(picture: Image.Image, predictions: Sequence[dict[str, Any]]) -> None:
    """Draw predictions, given best first: the best is drawn last, over the others."""
    brush = ImageDraw.Draw(picture)
    line = line_width(picture.size)
    for prediction in reversed(predictions):
        colour = COLOURS[prediction["class_id"] % len(COLOURS)]
        left, top, right, bottom = edges(prediction["box"], picture.size)
        brush.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)
        if line > 1 and min(right - left, bottom - top) > 4 * line:
            # A black or white rim inside, so that the line shows on a background of its own colour too.
            inner = (left + line, top + line, right - 1 - line, bottom - 1 - line)
            brush.rectangle(inner, outline=ink(colour), width=max(1, line // 4))
    taken: list[Rectangle] = []
    for prediction in predictions:
        taken += _label(brush, picture.size, prediction, taken)


def line_width(size: tuple[int, int]) -> int:
    """Return the width of a box's line in pixels: 3 on 512 x 512, 17 on 4000 x 3000."""
    return max(1, round(math.sqrt(size[0] * size[1]) / 200))


def text_size(size: tuple[int, int]) -> int:
    """Return the size of the text in pixels: 16 on 512 x 512, 108 on 4000 x 3000; a third of a side at most, or 10."""
    return max(SMALLEST_TEXT, round(min(math.sqrt(size[0] * size[1]) / 32, min(size) / 3)))


def edges(box: dict[str, float], size: tuple[int, int]) -> Rectangle:
    """Return a box in whole pixels, at least one wide and high, inside the picture."""
    left, top = (min(max(0, round(box[name])), side - 1) for name, side in zip(("xmin", "ymin"), size, strict=True))
    right, bottom = (min(max(1, round(box[name])), side) for name, side in zip(("xmax", "ymax"), size, strict=True))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _label(
    brush: ImageDraw.ImageDraw, size: tuple[int, int], prediction: dict[str, Any], taken: list[Rectangle]
) -> list[Rectangle]:
    """Draw a label's plate where it hides no other, if possible; return it in a list, empty when no wording fits."""
    wording = _fitting(prediction, size)
    if wording is None:
        return []
    text, font, (width, height), start = wording
    left, top, right, bottom = edges(prediction["box"], size)
    corners = [(left, top - height), (left, top), (left, bottom), (right - width, bottom - height)]
    plates = [_inside(corner, (width, height), size) for corner in corners]
    plate = next((plate for plate in plates if not any(_overlap(plate, other) for other in taken)), plates[0])
    colour = COLOURS[prediction["class_id"] % len(COLOURS)]
    brush.rectangle((plate[0], plate[1], plate[2] - 1, plate[3] - 1), fill=colour)
    brush.text((plate[0] + start[0], plate[1] + start[1]), text, fill=ink(colour), font=font, anchor="ls")
    return [plate]


def _fitting(
    prediction: dict[str, Any], size: tuple[int, int]
) -> tuple[str, ImageFont.FreeTypeFont, tuple[int, int], tuple[int, int]] | None:
    """Return the longest wording that fits into the picture, its font, its plate's size, and its offset there."""
    label, score = written(prediction["label"], prediction["class_id"]), f"{prediction['score']:.2f}"
    largest = text_size(size)
    for text in (f"{label} {score}", label, score):
        for points in dict.fromkeys((largest, max(SMALLEST_TEXT, largest * 2 // 3), SMALLEST_TEXT)):
            font = _font(points)
            margin = max(1, points // 6)
            # Measured by tall and deep letters: all plates have the same height, all texts the same baseline.
            _, top, _, bottom = font.getbbox("Agjl", anchor="ls")
            width, height = (math.ceil(length) + 2 * margin for length in (font.getlength(text), bottom - top))
            if width <= size[0] and height <= size[1] and width * height * PLATE_SHARE <= size[0] * size[1]:
                return text, font, (width, height), (margin, margin - math.floor(top))
    return None


@lru_cache(64)
def _font(points: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(points)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType")
    return font


def written(label: str, class_id: int) -> str:
    """Return a label in the font's characters, ASCII: without accents, or else the number of the class."""
    plain = "".join(part for part in unicodedata.normalize("NFKD", label) if not unicodedata.combining(part))
    plain = " ".join(plain.split())
    return plain if plain and plain.isascii() and plain.isprintable() else f"class {class_id}"


def ink(colour: str) -> str:
    """Return black or white, whichever stands out more on `colour` (WCAG 2, relative luminance)."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def _inside(corner: tuple[int, int], plate: tuple[int, int], size: tuple[int, int]) -> Rectangle:
    """Push a plate that begins at `corner` into the picture."""
    left, top = (min(max(0, corner[axis]), size[axis] - plate[axis]) for axis in (0, 1))
    return left, top, left + plate[0], top + plate[1]


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
