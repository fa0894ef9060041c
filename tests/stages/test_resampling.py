"""Pictures are resized as cv2.resize does it, held against cv2 itself."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from stages import imaging, resampling
from stages.recipe import Recipe

METHODS = {"opencv_linear": cv2.INTER_LINEAR, "opencv_area": cv2.INTER_AREA}
SIZES = [(640, 480), (320, 240), (600, 400), (1, 1), (7, 900), (513, 3), (28, 28), (300, 200), (227, 227), (1024, 100)]


def noise(width, height, seed=0):
    """Return the hardest picture: grey levels without any order, or only black and white."""
    source = np.random.default_rng(seed + width * height)
    if seed % 2:
        return (source.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8)
    return source.integers(0, 256, (height, width, 3), dtype=np.uint8)


def largest_difference(pixels, size, name):
    """Return by how many grey levels our picture differs from OpenCV's at most."""
    ours = np.asarray(resampling.resize(Image.fromarray(pixels), size, resampling.filter_of(name)), int)
    theirs = cv2.resize(pixels, size, interpolation=METHODS[name]).astype(int)
    return np.abs(ours - theirs).max()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_photographs_and_noise_are_within_one_grey_level_of_cv2(name, size):
    pictures = [data.astronaut(), data.coffee(), data.chelsea(), noise(600, 400), noise(311, 684, 1), noise(20, 9)]
    assert [largest_difference(pixels, size, name) <= 1 for pixels in pictures] == [True] * len(pictures)


@pytest.mark.parametrize("name", METHODS)
def test_a_hundred_ratios_of_noise_are_within_one_grey_level_of_cv2(name):
    source = np.random.default_rng(3)
    for seed in range(100):
        (width, height), (a, b) = source.integers(1, 400, 2), source.integers(1, 300, 2)
        if seed % 4 == 0:
            width, height = int(a) * 3, int(b) * 2  # whole factors, of which 2 is a case of its own in OpenCV
        pixels = noise(int(width), int(height), seed)
        assert largest_difference(pixels, (int(a), int(b)), name) <= 1, ((width, height), (a, b))


@pytest.mark.parametrize("name", METHODS)
def test_grey_pictures_are_resized_alike(name):
    grey = noise(300, 200)[:, :, 0].copy()
    assert largest_difference(grey, (128, 77), name) <= 1
    assert largest_difference(grey, (100, 50), name) <= 1


def test_pillows_filters_smooth_where_opencv_does_not():
    """If they were alike, the names would be of no use."""
    pixels = data.astronaut()
    ours = np.asarray(Image.fromarray(pixels).resize((128, 128), Image.Resampling.BILINEAR), int)
    theirs = cv2.resize(pixels, (128, 128), interpolation=cv2.INTER_LINEAR).astype(int)
    assert np.abs(ours - theirs).max() > 50


def ultralytics_letterbox(pixels, side):
    """Return what LetterBox of ultralytics.data.augment gives (scaleup, center, auto=False), by its formulas."""
    height, width = pixels.shape[:2]
    ratio = min(side / height, side / width)
    unpadded = round(width * ratio), round(height * ratio)
    across, down = (side - unpadded[0]) / 2, (side - unpadded[1]) / 2
    if (width, height) != unpadded:
        pixels = cv2.resize(pixels, unpadded, interpolation=cv2.INTER_LINEAR)
    top, bottom = round(down - 0.1), round(down + 0.1)
    left, right = round(across - 0.1), round(across + 0.1)
    return cv2.copyMakeBorder(pixels, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114))


def yolox_letterbox(pixels, side):
    """Return what `preproc` of yolox.data.data_augment gives, before its transpose."""
    padded = np.full((side, side, 3), 114, np.uint8)
    ratio = min(side / pixels.shape[0], side / pixels.shape[1])
    size = int(pixels.shape[1] * ratio), int(pixels.shape[0] * ratio)
    padded[: size[1], : size[0]] = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
    return padded


def square(pixels, side):
    """Return a picture padded to a square at its right or bottom, then resized."""
    longer = max(pixels.shape[:2])
    padded = np.full((longer, longer, 3), 114, np.uint8)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return padded


RULES = {"letterbox_center": ultralytics_letterbox, "letterbox": yolox_letterbox}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(600, 400), (427, 640), (1280, 719), (333, 500), (640, 640), (50, 31)])
def test_letterboxes_are_those_of_their_trainers(rule, size):
    pixels = noise(*size)
    recipe = Recipe(320, 320, rule, resample=resampling.OpenCV.LINEAR)
    fitted, _ = imaging.fit(Image.fromarray(pixels), recipe)
    assert np.abs(fitted.astype(int) - RULES[rule](pixels, 320)).max() <= 1


@pytest.mark.parametrize(
    "size", [(600, 400), (427, 640), (1280, 719), (300, 3), (3, 300), (64, 64), (50, 31), (641, 640)]
)
@pytest.mark.parametrize("side", [320, 97, 28])
def test_a_square_is_padded_before_it_is_resized(size, side):
    """By each filter, as if the whole square were made; the line between picture and padding mixes both."""
    pixels = noise(*size) // 4 + 96  # wide filters overshoot; where that is cut off, Pillow's order of axes shows
    whole = square(pixels, side)
    for name in ("opencv_linear", "opencv_area", "bilinear", "bicubic", "lanczos", "box"):
        method = resampling.filter_of(name)
        if name in METHODS:
            expected = cv2.resize(whole, (side, side), interpolation=METHODS[name])
        else:
            expected = np.asarray(Image.fromarray(whole).resize((side, side), method))
        got, geometry = imaging.fit(Image.fromarray(pixels), Recipe(side, side, "letterbox_square", resample=method))
        assert np.abs(got.astype(int) - expected).max() <= 1, name
        assert geometry == (side / max(size), side / max(size), 0, 0)


def test_a_very_long_picture_does_not_become_a_large_square(monkeypatch):
    made = []
    new = Image.new

    def watched(mode, size, *colour):
        made.append(size[0] * size[1])
        return new(mode, size, *colour)

    picture = Image.new("RGB", (40_000, 2), "red")
    monkeypatch.setattr(Image, "new", watched)
    for filter_ in (resampling.OpenCV.AREA, resampling.OpenCV.LINEAR, Image.Resampling.LANCZOS):
        for width in (40_000, 8000):
            got, _ = imaging.fit(picture.crop((0, 0, width, 2)), Recipe(64, 64, "letterbox_square", resample=filter_))
            assert got.shape == (64, 64, 3)
            assert got[0, 0, 0] >= got[40, 0, 0] == 114
    assert max(made) <= 10_000_000


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", [(1, 300_000), (300_000, 1), (9000, 700)])
def test_extreme_pictures_are_reduced_without_a_large_array_in_between(name, size):
    fitted = resampling.resize(Image.new("RGB", size, "red"), (300, 300), resampling.filter_of(name))
    assert (np.asarray(fitted) == (255, 0, 0)).all()


def test_the_steps_do_not_import_opencv():
    """Triton's image has none."""
    for path in (Path(imaging.__file__).parent).rglob("*.py"):
        assert "import cv2" not in path.read_text()
