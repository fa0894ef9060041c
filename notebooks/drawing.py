"""Pictures for the notebooks, drawn with Pillow: bar charts and joined pictures, small enough to be committed."""

from __future__ import annotations

import io
from collections.abc import Mapping

from IPython.display import Image as Shown
from PIL import Image, ImageDraw, ImageFont

INK, PAPER, BAR = "#1f2328", "#ffffff", "#0969da"
LINE, MARGIN, BAR_WIDTH, VALUE_WIDTH = 26, 12, 220, 70
TITLE, TEXT = ImageFont.load_default(16), ImageFont.load_default(13)


def bars(title: str, values: Mapping[str, float], *, most: float | None = None, places: int = 3) -> Image.Image:
    """Return a bar chart; a full bar stands for `most` (default: the greatest value)."""
    full = max(values.values()) if most is None else most
    left = 2 * MARGIN + max(round(TEXT.getlength(name)) for name in values)
    width = max(left + BAR_WIDTH + VALUE_WIDTH, round(TITLE.getlength(title)) + 2 * MARGIN)
    chart = Image.new("RGB", (width, LINE * len(values) + 50), PAPER)
    draw = ImageDraw.Draw(chart)
    draw.text((MARGIN, MARGIN), title, INK, TITLE)
    for number, (name, value) in enumerate(values.items()):
        top, middle = 42 + LINE * number, 52 + LINE * number
        right = left + max(1, round(BAR_WIDTH * value / full)) if full else left + 1
        draw.text((left - 8, middle), name, INK, TEXT, anchor="rm")
        draw.rectangle((left, top, right, top + LINE - 6), BAR)
        draw.text((right + 6, middle), f"{value:.{places}f}", INK, TEXT, anchor="lm")
    return chart


def beside(*pictures: Image.Image, height: int = 300) -> Image.Image:
    """Return pictures side by side; those higher than `height` pixels are shrunk to it."""
    fitted = [
        one if one.height <= height else one.resize((round(one.width * height / one.height), height))
        for one in pictures
    ]
    row = Image.new("RGB", (sum(one.width for one in fitted), max(one.height for one in fitted)), PAPER)
    left = 0
    for one in fitted:
        row.paste(one, (left, (row.height - one.height) // 2))
        left += one.width
    return row


def below(*pictures: Image.Image) -> Image.Image:
    """Return pictures one below the other."""
    column = Image.new("RGB", (max(one.width for one in pictures), sum(one.height for one in pictures)), PAPER)
    top = 0
    for one in pictures:
        column.paste(one, (0, top))
        top += one.height
    return column


def show(picture: Image.Image, kind: str = "JPEG") -> Shown:
    """Return a picture for display in a cell: JPEG for photographs, PNG for charts."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=82, optimize=True)
    return Shown(buffer.getvalue(), format=kind.lower())  # type: ignore[no-untyped-call]
