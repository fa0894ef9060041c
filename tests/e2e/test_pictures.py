"""`/v1/detect` as a picture, compared with the JSON answer to the same image."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data

Pixels = npt.NDArray[np.int16]


def png(image: Image.Image, **options: Any) -> bytes:
    """Return an image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def ask(http: httpx.Client, image: bytes, accept: str, **query: Any) -> httpx.Response:
    """Return the answer."""
    files = {"image": ("picture", image)}
    return http.post("/v1/detect", files=files, params=query, headers={"Accept": accept})


def picture(response: httpx.Response) -> Pixels:
    """Return the pixels of a picture answer."""
    assert response.status_code == 200, response.text
    opened = Image.open(io.BytesIO(response.content))
    assert response.headers["Content-Type"] == f"image/{str(opened.format).lower()}"
    assert opened.mode == "RGB"
    return np.asarray(opened, np.int16)


def ring(box: dict[str, float], width: int) -> tuple[slice, slice, slice, slice]:
    """Return rows and columns of a box's lines of that width, and of its inside."""
    left, top, right, bottom = (round(box[side]) for side in ("xmin", "ymin", "xmax", "ymax"))
    inside = slice(top + width, bottom - width), slice(left + width, right - width)
    return slice(top, bottom), slice(left, right), *inside


def test_the_box_is_where_the_answer_says(http: httpx.Client) -> None:
    """One box: its four sides have one colour, and nothing else changed but the label's plate."""
    image = Image.fromarray(data.astronaut())
    (person,) = ask(http, png(image), "application/json", max_detections=1).json()["predictions"]
    pixels = picture(ask(http, png(image), "image/png", max_detections=1))
    before = np.asarray(image, np.int16)
    rows, columns, inner_rows, inner_columns = ring(person["box"], 1)
    colour = pixels[rows.stop - 1, columns.stop - 1]
    sides = np.zeros(pixels.shape[:2], bool)
    sides[rows, columns] = True
    sides[inner_rows, inner_columns] = False
    same = (pixels == colour).all(axis=2)
    assert same[sides].mean() > 0.95  # the label's letters may lie on the upper side
    assert not (before == colour).all(axis=2)[sides].any()
    changed = (pixels != before).any(axis=2)
    rows, columns, inner_rows, inner_columns = ring(person["box"], 4)
    lines = np.zeros_like(sides)
    lines[rows, columns] = True
    lines[inner_rows, inner_columns] = False
    plate_rows, plate_columns = np.nonzero(changed & ~lines)
    assert plate_rows.max() - plate_rows.min() < 40
    assert plate_columns.max() - plate_columns.min() < 160
    ink = changed & (pixels < 90).all(axis=2)  # the letters
    assert ink.sum() > 50


def test_every_box_is_drawn(http: httpx.Client) -> None:
    """Many boxes: the last pixel of each lower right corner has changed, unless another lies over it."""
    image = Image.fromarray(data.astronaut())
    query = {"score_threshold": 0.02, "iou_threshold": 1, "max_detections": 20}
    boxes = ask(http, png(image), "application/json", **query).json()["predictions"]
    pixels = picture(ask(http, png(image), "image/png", **query))
    changed = (pixels != np.asarray(image)).any(axis=2)
    assert len(boxes) > 5
    for found in boxes:
        rows, columns, *_ = ring(found["box"], 1)
        assert changed[max(rows.stop - 1, rows.start), max(columns.stop - 1, columns.start)]


@pytest.mark.parametrize("orientation", range(2, 9))
def test_pictures_are_upright(http: httpx.Client, orientation: int) -> None:
    """A photo that is stored turned gives exactly the picture of the upright one."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    upright = Image.fromarray(data.astronaut()).crop((0, 0, 500, 400))
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = png(upright.transpose(Image.Transpose(undo)), exif=exif)
    pixels = picture(ask(http, turned, "image/png"))
    assert pixels.shape == (400, 500, 3)
    assert np.array_equal(pixels, picture(ask(http, png(upright), "image/png")))


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (400, 10), (5000, 3200)])
def test_any_size_is_drawn(http: httpx.Client, size: tuple[int, int]) -> None:
    """From one pixel to 16 megapixels, the picture has its size."""
    image = png(Image.fromarray(data.astronaut()).resize(size))
    for kind in ("image/png", "image/jpeg"):
        response = http.post(
            "/v1/detect",
            content=image,
            params={"score_threshold": 0.02},
            headers={"Content-Type": "image/png", "Accept": kind, "X-Request-Timeout-Ms": "60000"},
        )
        assert picture(response).shape == (size[1], size[0], 3)


def test_transparency_is_white(http: httpx.Client) -> None:
    """Where a PNG is transparent and has no box, the picture is white."""
    image = Image.fromarray(data.astronaut()).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert (picture(ask(http, png(image), "image/png", score_threshold=1)) == 255).all()


def test_jpeg_is_the_same_picture(http: httpx.Client, astronaut: bytes) -> None:
    """JPEG differs from PNG only by its compression."""
    response = ask(http, astronaut, "image/jpeg")
    assert response.headers["X-Request-ID"]
    assert "encode" in response.headers["Server-Timing"]
    difference = picture(response) - picture(ask(http, astronaut, "image/png"))
    assert np.abs(difference).mean() < 4


def test_json_is_preferred_where_both_are_accepted(http: httpx.Client, astronaut: bytes) -> None:
    """Only clients that ask for pictures get them."""
    for accept in ("*/*", "application/json, image/jpeg", "image/jpeg;q=0.5, application/json"):
        assert ask(http, astronaut, accept).json()["predictions"]
    assert picture(ask(http, astronaut, "application/json;q=0.5, image/*")).shape == (512, 512, 3)


def test_problems_stay_problems(http: httpx.Client, astronaut: bytes) -> None:
    """Failures are answered in JSON, and no other route gives pictures."""
    wide = png(Image.new("RGB", (65_536, 2)))
    answers = {
        ask(http, b"no image", "image/jpeg"): (422, "image_undecodable"),
        ask(http, astronaut, "image/jpeg", score_threshold=2): (422, "invalid_parameter"),
        ask(http, astronaut, "image/webp"): (406, "not_acceptable"),
        ask(http, wide, "image/jpeg"): (413, "image_too_large"),
        http.post("/v1/classify", files={"image": astronaut}, headers={"Accept": "image/jpeg"}): (
            406,
            "not_acceptable",
        ),
        http.post("/v1/detect/batch", files=[("images", astronaut)], headers={"Accept": "image/png"}): (
            406,
            "not_acceptable",
        ),
        http.post("/v1/sentiment", json={"text": "a"}, headers={"Accept": "image/*"}): (406, "not_acceptable"),
    }
    for response, expected in answers.items():
        assert response.headers["Content-Type"] == "application/problem+json"
        assert (response.status_code, response.json()["code"]) == expected
    assert picture(ask(http, wide, "image/png")).shape == (2, 65_536, 3)
