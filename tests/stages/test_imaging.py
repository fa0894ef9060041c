"""A picture becomes a tensor by the recipe's rule, and the geometry maps boxes back."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from stages import imaging
from stages.recipe import RULES, Recipe

SIZES = [
    (600, 400),
    (400, 600),
    (427, 640),
    (257, 300),
    (224, 224),
    (256, 256),
    (10, 10),
    (1, 7),
    (269, 704),
]
CROP = Recipe(224, 224, "shortest_edge_center_crop", 256, resample=Image.Resampling.BICUBIC)


def noise(width, height):
    return Image.fromarray(np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("resample", ["BICUBIC", "BILINEAR", "LANCZOS"])
@pytest.mark.parametrize("size", SIZES)
def test_the_crop_equals_resizing_the_whole_and_cropping(size, resample):
    image, method = noise(*size), Image.Resampling[resample]
    scale = 256 / min(size)
    whole = image.resize((round(size[0] * scale), round(size[1] * scale)), method)
    left, top = (whole.width - 224) // 2, (whole.height - 224) // 2
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224)), int)
    got, geometry = imaging.fit(image, dataclasses.replace(CROP, resample=method))
    assert (got == expected).all()
    assert geometry == (whole.width / size[0], whole.height / size[1], -left, -top)


@pytest.mark.parametrize("size", [(3000, 300), (300, 2999)])
def test_a_very_long_picture_is_cut_in_its_middle(size):
    """The crop shows the original's middle to within a pixel, without resizing the whole."""
    image = Image.merge("RGB", [Image.linear_gradient("L").resize(size)] * 3)
    wide = size[0] > size[1]
    image = image.transpose(Image.Transpose.ROTATE_90).resize(size) if wide else image
    got, geometry = imaging.fit(image, CROP)
    scale = 256 / 300
    left, top = ((size[0] - 224 / scale) / 2, (size[1] - 224 / scale) / 2)
    assert -geometry.pad_x / geometry.scale_x == pytest.approx(left, abs=1)
    assert -geometry.pad_y / geometry.scale_y == pytest.approx(top, abs=1)
    middle = np.asarray(image)[size[1] // 2, size[0] // 2].astype(int)
    assert np.abs(got[112, 112] - middle).max() <= 2


@pytest.mark.parametrize(
    ("size", "inside"),
    [((832, 416), (416, 208)), ((300, 500), (249, 416)), ((416, 416), (416, 416)), ((10, 20), (208, 416))],
)
def test_letterbox_lies_top_left_with_truncated_sides(size, inside):
    recipe = Recipe(416, 416, "letterbox", pad_value=114)
    got, geometry = imaging.fit(noise(*size), recipe)
    width, height = inside
    expected = np.full((416, 416, 3), 114, np.uint8)
    expected[:height, :width] = np.asarray(noise(*size).resize(inside, Image.Resampling.BILINEAR))
    assert (got == expected).all()
    assert geometry == (width / size[0], height / size[1], 0, 0)


@pytest.mark.parametrize(
    ("size", "inside", "corner"),
    [((640, 320), (640, 320), (0, 160)), ((300, 500), (384, 640), (128, 0)), ((1000, 333), (640, 213), (0, 213))],
)
def test_letterbox_center_lies_in_the_middle_with_rounded_sides(size, inside, corner):
    got, geometry = imaging.fit(noise(*size), Recipe(640, 640, "letterbox_center", pad_value=0))
    (width, height), (left, top) = inside, corner
    expected = np.zeros((640, 640, 3), np.uint8)
    expected[top : top + height, left : left + width] = np.asarray(noise(*size).resize(inside, 2))
    assert (got == expected).all()
    assert geometry == (width / size[0], height / size[1], left, top)


def test_letterbox_fills_a_tensor_that_is_not_square():
    got, geometry = imaging.fit(Image.new("RGB", (100, 100), "white"), Recipe(300, 200, "letterbox"))
    assert got.shape == (200, 300, 3)
    assert (got[:, :200] == 255).all()
    assert (got[:, 200:] == 114).all()
    assert geometry == (2, 2, 0, 0)


def test_stretch_ignores_proportions():
    got, geometry = imaging.fit(noise(30, 20), Recipe(60, 10, "stretch"))
    assert (got == np.asarray(noise(30, 20).resize((60, 10), Image.Resampling.BILINEAR))).all()
    assert geometry == (2, 0.5, 0, 0)


def recipe(rule, side, resize_to):
    """Return a recipe for a rule; without a fixed size, the longer side is limited to 1.5 times `resize_to`."""
    side = 0 if rule == "shortest_edge" else side
    return Recipe(side, side, rule, resize_to=resize_to, pad_value=0, longest_edge=resize_to * 3 // 2)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(600, 400), (333, 500), (1200, 1100)])
def test_geometry_leads_from_the_picture_to_the_tensor_and_back(rule, size):
    mark = np.array([size[0] * 0.45, size[1] * 0.55])
    side = max(4, max(size) // 40)
    image = np.zeros((size[1], size[0], 3), np.uint8)
    x, y = (mark - side / 2).astype(int)
    image[y : y + side, x : x + side] = 255
    got, geometry = imaging.fit(Image.fromarray(image), recipe(rule, 416, 440))
    weights = got[..., 0] / got[..., 0].sum()
    rows, columns = np.mgrid[: got.shape[0], : got.shape[1]] + 0.5
    found = np.array([(columns * weights).sum(), (rows * weights).sum()])
    back = (found - geometry[2:]) / geometry[:2]
    assert np.abs(back - (x + side / 2, y + side / 2)).max() < 0.5


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(1, 10_000), (10_000, 1), (1, 1), (2, 65_535)])
def test_extreme_pictures_fit_without_a_large_picture_in_between(rule, size, monkeypatch):
    made, resize = [], Image.Image.resize

    def watched(self, size, *args, **kwargs):
        made.append(size[0] * size[1])
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", watched)
    got, geometry = imaging.fit(Image.new("RGB", size, "red"), recipe(rule, 224, 256))
    assert got.shape == (224, 224, 3) or (rule == "shortest_edge" and max(got.shape) <= 384)
    assert (got == (255, 0, 0)).all(axis=2).any()
    assert min(geometry[:2]) > 0
    assert 0 < max(made) <= 8 * 256 * 256


def test_a_long_picture_is_cut_where_the_middle_is():
    stripes = np.zeros((60_000, 20, 3), np.uint8)
    stripes[30_000:] = 255
    got, _ = imaging.fit(Image.fromarray(stripes), CROP)
    assert (got[:100] == 0).all()
    assert (got[124:] == 255).all()


def test_normalising_is_scale_then_mean_then_std():
    pixels = np.random.default_rng(1).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    recipe = Recipe(5, 6, "stretch", mean=mean, std=std)
    expected = ((pixels.astype(np.float64) / 255 - mean) / std).transpose(2, 0, 1)
    got = imaging.normalise(pixels, recipe)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert np.abs(got - expected).max() < 1e-6


def test_normalising_keeps_channels_last_and_turns_their_order():
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    recipe = Recipe(5, 4, "stretch", scale=1, mean=(1, 2, 3), channel_order="BGR", layout="NHWC")
    got = imaging.normalise(pixels, recipe)
    assert (got == pixels[..., ::-1].astype(np.float32) - np.array([1, 2, 3])).all()
    planar = imaging.normalise(pixels, dataclasses.replace(recipe, layout="NCHW"))
    assert (planar == got.transpose(2, 0, 1)).all()
    assert (got.shape, planar.shape) == (recipe.shape, dataclasses.replace(recipe, layout="NCHW").shape)


def test_a_recipe_is_read_from_texts():
    texts = {
        "width": "320",
        "height": "240",
        "resize": "letterbox_center",
        "resample": "lanczos",
        "pad_value": "7",
        "scale": "1",
        "mean": "1, 2,3",
        "std": "4,5,6.5",
        "channel_order": "BGR",
        "layout": "NHWC",
        "max_pixels": "1000",
        "labels": "another step's",
    }
    lanczos = Image.Resampling.LANCZOS
    expected = Recipe(320, 240, "letterbox_center", 0.0, lanczos, 7, 1.0, (1, 2, 3), (4, 5, 6.5), "BGR", "NHWC", 1000)
    assert Recipe.from_parameters(texts) == expected


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"width": "wide"}, "width"),
        ({"height": "0"}, "height"),
        ({"resize": "squeeze"}, "resize"),
        ({"resize": "shortest_edge_center_crop"}, "resize_to"),
        ({"resize": "shortest_edge_center_crop", "resize_to": "9"}, "resize_to"),
        ({"resample": "best"}, "resample"),
        ({"pad_value": "256"}, "pad_value"),
        ({"mean": "1,2"}, "mean"),
        ({"std": "1,0,1"}, "std"),
        ({"scale": "nan"}, "scale"),
        ({"channel_order": "GBR"}, "channel_order must be RGB, BGR or GREY"),
        ({"channel_order": "GREY", "mean": "1,2,3", "std": "1"}, "mean and std must have a value for each channel"),
        ({"resize": "letterbox_square", "width": "11"}, "letterbox_square needs width and height to be equal"),
        ({"resize": "stretch_center_crop", "resize_to": "9"}, "resize_to must be at least width and height"),
        ({"rounding": "up"}, "rounding must be nearest, down or torchvision"),
        ({"alpha": "black"}, "alpha must be white or drop"),
        ({"resample": "opencv_best"}, "resample"),
        ({"layout": "CHW"}, "layout"),
        ({"max_pixels": "0"}, "max_pixels"),
    ],
)
def test_a_wrong_parameter_is_named(change, named):
    with pytest.raises(ValueError, match=named):
        Recipe.from_parameters({"width": "10", "height": "10", "resize": "stretch", **change})


def test_a_missing_parameter_is_named():
    with pytest.raises(ValueError, match="missing: resize"):
        Recipe.from_parameters({"width": "10"})
    with pytest.raises(ValueError, match="width and height"):
        Recipe.from_parameters({"width": "10", "resize": "stretch"})


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (1066, 800)),  # of transformers' get_size_with_aspect_ratio, shortest 800, longest 1333
        ((480, 640), (800, 1066)),
        ((500, 500), (800, 800)),
        ((2000, 500), (1333, 333)),
        ((810, 1080), (800, 1066)),
        ((1, 10_000), (1, 1333)),
    ],
)
def test_the_shortest_edge_leads_unless_the_longest_would_pass_its_limit(size, expected):
    rule = Recipe(0, 0, "shortest_edge", resize_to=800, longest_edge=1333)
    got, geometry = imaging.fit(Image.new("RGB", size), rule)
    assert got.shape[1::-1] == expected
    assert geometry == (expected[0] / size[0], expected[1] / size[1], 0, 0)


def test_sides_are_cut_to_a_multiple():
    rule = Recipe(0, 0, "shortest_edge", resize_to=500, longest_edge=700, multiple_of=16)
    assert imaging.fit(Image.new("RGB", (600, 400)), rule)[0].shape == (464, 688, 3)


@pytest.mark.parametrize(("rounding", "width"), [("nearest", 172), ("down", 171)])
def test_rounding_decides_the_last_pixel(rounding, width):
    image = noise(343, 256)  # becomes 171.5 x 128
    rule = Recipe(100, 100, "shortest_edge_center_crop", resize_to=128, rounding=rounding)
    left = (width - 100) // 2
    whole = image.resize((width, 128), Image.Resampling.BILINEAR)
    assert (imaging.fit(image, rule)[0] == np.asarray(whole.crop((left, 14, left + 100, 114)))).all()


@pytest.mark.parametrize(("order", "first"), [("RGB", 1), ("BGR", 3)])
def test_arranging_leaves_values_alone(order, first):
    pixels = np.tile(np.array([1, 2, 3], np.uint8), (4, 5, 1))
    for layout, shape in (("NCHW", (3, 4, 5)), ("NHWC", (4, 5, 3))):
        got = imaging.arrange(pixels, Recipe(5, 4, "stretch", channel_order=order, layout=layout))
        assert (got.shape, got.dtype, got.flat[0]) == (shape, np.uint8, first)
