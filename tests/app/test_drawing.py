"""Boxes, labels and scores on a picture: where they are, that they can be read, and what is refused."""

from __future__ import annotations

import asyncio
import io
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from app import drawing
from app.errors import DeadlineExceededError, ImageTooLargeError, ImageUndecodableError

ROOT = Path(__file__).resolve().parent.parent.parent
GREY = (119, 121, 123)


def prediction(box: tuple[float, float, float, float], label: str = "person", class_id: int = 0) -> dict[str, Any]:
    """Return one, as `/v1/detect` answers it."""
    sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return {"label": label, "class_id": class_id, "score": 0.884, "box": sides}


def blank(width: int, height: int) -> bytes:
    """Return a grey PNG."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), GREY).save(buffer, "PNG")
    return buffer.getvalue()


def drawn(image: bytes, *predictions: dict[str, Any]) -> npt.NDArray[np.uint8]:
    """Return the pixels of the picture answer."""
    return np.asarray(Image.open(io.BytesIO(drawing.draw(image, predictions, "image/png"))))


def rgb(colour: str) -> tuple[int, int, int]:
    """Return #rrggbb as three bytes."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Return the contrast of two colours by WCAG 2.2's formula."""

    def luminance(colour: tuple[int, ...]) -> float:
        shares = np.array(colour) / 255
        linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("size", [(64, 64), (640, 480), (480, 640), (6000, 4000), (4000, 40), (40, 3000)])
def test_a_label_can_be_read_at_any_size(size: tuple[int, int]) -> None:
    """Its letters are 6 pixels high at least, and a 45th of the picture's mean side where there is room for that."""
    pixels = drawn(blank(*size), prediction((0, size[1] / 2, size[0], size[1])))
    assert pixels.shape == (size[1], size[0], 3)
    # The ink above the box: neither the picture nor the plate is dark.
    rows, _ = np.nonzero((pixels[: size[1] // 2] < 90).all(axis=2))
    height = rows.max() - rows.min() + 1
    assert height >= max(6, min((size[0] * size[1]) ** 0.5 / 45, min(size) / 6))
    assert contrast((0, 0, 0), rgb(drawing.COLOURS[0])) >= 4.5


def test_a_tiny_picture_has_boxes_and_no_broken_text() -> None:
    """Where not even the score fits there is the box alone, as thin as can be."""
    pixels = drawn(blank(16, 16), prediction((3, 4, 12, 14)))
    expected = np.full((16, 16, 3), GREY, np.uint8)
    expected[4:14, 3:12] = rgb(drawing.COLOURS[0])
    expected[5:13, 4:11] = GREY
    assert np.array_equal(pixels, expected)


def test_boxes_beyond_the_picture_stay_inside() -> None:
    """A box of no width, or one at the very edge, is a line within the picture."""
    for box in ((0, 0, 0, 0), (99.9, 99.9, 100, 100), (50, 50, 50, 80), (0, 0, 100, 100)):
        changed = (drawn(blank(100, 100), prediction(box)) != GREY).any(axis=2)
        assert changed.any()


def test_no_label_hides_another() -> None:
    """Three boxes at one place: all three plates are seen whole."""
    boxes = [prediction((100, 100, 400, 300), "cat", number) for number in range(3)]
    alone = [(drawn(blank(500, 400), box) == rgb(drawing.COLOURS[box["class_id"]])).all(axis=2) for box in boxes]
    together = drawn(blank(500, 400), *boxes)
    plates = [(together == rgb(drawing.COLOURS[number])).all(axis=2) for number in range(3)]
    # The lines lie over each other; a plate is many times what remains of one.
    filled = [int(mask.sum()) for mask in plates]
    outline = 2 * (300 + 200) * drawing.line_width((500, 400))
    assert all(count > int(mask.sum()) - outline for count, mask in zip(filled, alone, strict=True))


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("person", "person"),
        ("café\n au  lait", "cafe au lait"),
        ("猫", "class 7"),
        ("", "class 7"),
        ("\x00", "class 7"),
    ],
)
def test_labels_are_written_as_the_font_can(label: str, expected: str) -> None:
    """Accents are left out; a label in letters that the font lacks becomes its class's number."""
    assert drawing.written(label, 7) == expected


def test_every_colour_is_readable_and_the_playground_has_the_same() -> None:
    """Text stands out from its plate, and a class has one colour in both places."""
    for colour in drawing.COLOURS:
        assert contrast(rgb({"black": "#000000", "white": "#ffffff"}[drawing.ink(colour)]), rgb(colour)) >= 4.5
    script = (ROOT / "app/static/playground/boxes.js").read_text()
    listed, white = script.split("const NEEDS_WHITE")
    assert tuple(re.findall("#[0-9a-f]{6}", listed)) == drawing.COLOURS
    assert re.findall("#[0-9a-f]{6}", white) == [c for c in drawing.COLOURS if drawing.ink(c) == "white"]


def test_pictures_are_what_models_see() -> None:
    """Transparency is white, and grey of 16 bits keeps its shades."""
    clear = Image.new("RGBA", (20, 10), (255, 0, 0, 0))
    clear.putpixel((3, 4), (0, 0, 255, 255))
    deep = np.arange(200, dtype=np.uint16).reshape(10, 20) * 257
    files = []
    for image in (clear, Image.fromarray(deep)):
        files.append(io.BytesIO())
        image.save(files[-1], "PNG")
    pixels = drawn(files[0].getvalue())
    assert tuple(pixels[4, 3]) == (0, 0, 255)
    assert (pixels == 255).all(axis=2).sum() == 199
    assert np.array_equal(drawn(files[1].getvalue()), np.repeat((deep // 257)[:, :, None], 3, axis=2))


def test_bombs_and_damage_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pixel more than the limit is refused before it is decoded, as is what is no image."""

    async def ask(image: bytes) -> bytes:
        pen = drawing.Drawing()
        try:
            return await pen.picture(image, [], "image/png", 30)
        finally:
            pen.close()

    monkeypatch.setattr(drawing, "MAX_PIXELS", 100 * 100)
    assert asyncio.run(ask(blank(100, 100)))
    for size in ((101, 100), (300, 300)):
        with pytest.raises(ImageTooLargeError):
            asyncio.run(ask(blank(*size)))
    for broken in (b"", b"no image", blank(50, 50)[:60]):
        with pytest.raises(ImageUndecodableError):
            asyncio.run(ask(broken))


def test_the_deadline_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose turn does not come in time is answered, and is never drawn."""
    begun: list[bytes] = []
    answered = threading.Event()

    def slow(image: bytes, *_: object) -> bytes:
        begun.append(image)
        answered.wait(60)
        return image

    async def crowd() -> list[bytes | BaseException]:
        pen = drawing.Drawing()
        asks = (pen.picture(bytes([number]), [], "image/png", 2) for number in range(6))
        answers = await asyncio.gather(*asks, return_exceptions=True)
        pen.close()
        answered.set()
        return answers

    monkeypatch.setattr(drawing, "draw", slow)
    assert all(isinstance(answer, DeadlineExceededError) for answer in asyncio.run(crowd()))
    assert len(begun) == drawing.AT_ONCE
