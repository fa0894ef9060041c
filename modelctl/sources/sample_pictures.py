"""Draws a model's boxes or first label onto a sample picture, for a person to judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from modelctl.errors import CommandError
from modelctl.reference.answers import Found
from modelctl.reference.pictures import upright

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#000075")
LINES = 3
"""Labels of a classifier that are written onto a picture."""


def save(folder: Path, pictures: Mapping[str, bytes], answers: Mapping[str, list[Found]]) -> list[Path]:
    """Write each picture with its answer as PNG; return the paths.

    Raises:
        CommandError: when the folder cannot be written.

    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in pictures.items():
            paths.append(folder / f"{Path(name).stem}.png")
            _drawn(data, answers[name]).save(paths[-1])
    except OSError as error:
        raise CommandError(f"The pictures cannot be written to {folder}: {error}.") from error
    return paths


def _drawn(data: bytes, found: list[Found]) -> Image.Image:
    picture = upright(data)
    draw = ImageDraw.Draw(picture)
    size = max(10, min(picture.size) // 24)
    boxes = [one for one in found if one.box]
    for one in reversed(boxes):  # the best comes last, on top
        colour = COLOURS[one.class_id % len(COLOURS)]
        draw.rectangle(one.box, outline=colour, width=max(2, size // 6))
        _write(draw, (one.box[0], one.box[1]), one, size, colour)
    for row, one in enumerate(found[: 0 if boxes else LINES]):
        _write(draw, (0, row * (size + 4)), one, size, COLOURS[-1])
    return picture


def _write(draw: ImageDraw.ImageDraw, corner: tuple[float, float], one: Found, size: int, colour: str) -> None:
    font = ImageFont.load_default(size)
    text = f"{one.label} {one.score:.2f}"
    draw.rectangle(draw.textbbox(corner, text, font=font), fill=colour)
    draw.text(corner, text, fill="white", font=font)
