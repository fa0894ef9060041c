"""The reference prepares pictures as the source libraries do, and the steps as the reference, by other code."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data
from transformers.image_transforms import center_crop, get_resize_output_image_size

from modelctl.models.steps import ImagePreprocess
from modelctl.reference import opencv
from modelctl.reference.pictures import prepare, upright
from stages import decoding, imaging
from stages.recipe import Recipe

RULES = {
    "stretch": {"width": 96, "height": 64},
    "letterbox": {"width": 96, "height": 64},
    "letterbox_center": {"width": 97, "height": 96},
    "letterbox_square": {"width": 96, "height": 96},
    "stretch_center_crop": {"width": 64, "height": 61, "resize_to": 72.0},
    "shortest_edge_center_crop": {"width": 64, "height": 61, "resize_to": 72.0},
    "shortest_edge": {"resize_to": 64.0, "longest_edge": 100},
}
RESAMPLES = ("bilinear", "bicubic", "opencv_linear", "opencv_area")


def noise(width, height):
    return np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels, **options).save(file, "PNG")
    return file.getvalue()


def by_the_step(picture, settings):
    """Return what the preprocess step hands to a network that takes bytes, and its geometry."""
    parameters = {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in settings.model_dump(exclude={"instances"}, exclude_none=True, exclude_defaults=True).items()
    }
    recipe = Recipe.from_parameters(parameters)
    pixels, geometry = imaging.fit(decoding.upright_rgb(decoding.open_encoded(picture, 10**8), recipe.alpha), recipe)
    return imaging.arrange(pixels, recipe), geometry


@pytest.mark.parametrize("size", [(200, 100), (96, 640), (31, 44), (400, 300), (96, 64)])
def test_the_reference_is_opencvs(size):
    for pixels in (data.astronaut(), data.coffee(), noise(400, 300), noise(93, 31), noise(192, 128)):
        for ours, method in ((opencv.linear, cv2.INTER_LINEAR), (opencv.area, cv2.INTER_AREA)):
            theirs = cv2.resize(pixels, size, interpolation=method).astype(int)
            assert np.abs(ours(pixels, size) - theirs).max() <= 1


@pytest.mark.parametrize("order", ["RGB", "BGR", "GREY"])
@pytest.mark.parametrize("rule", RULES)
def test_steps_and_reference_prepare_alike(rule, order):
    """By every rule and filter: Pillow's to the bit, OpenCV's to one grey level, and boxes lie in the same place."""
    for layout in ("NCHW", "NHWC"):
        for resample in RESAMPLES:
            how = {"resize": rule, "resample": resample, "channel_order": order, "layout": layout, "scale": 1.0}
            settings = ImagePreprocess(**how, **RULES[rule], rounding="torchvision")
            for size in ((300, 200), (201, 333), (50, 31)):
                picture = png(noise(*size) // 4 + 96)
                (expected,), placement = prepare(picture, settings, "UINT8")
                got, geometry = by_the_step(picture, settings)
                assert (
                    got.shape
                    == expected.shape
                    == tuple(s if s > 0 else g for s, g in zip(settings.dims, got.shape, strict=True))
                )
                allowed = 1 if resample.startswith("opencv") or rule == "letterbox_square" else 0
                assert np.abs(got.astype(int) - expected).max() <= allowed, (layout, resample, size)
                assert np.allclose(geometry, (*placement.scale, *placement.offset))


def torchvision_crop(image, shorter, crop):
    """Return Resize(shorter) and CenterCrop(crop) by the formulas of torchvision.transforms.functional 0.21.

    `_compute_resized_output_size`: `int(size * long / short)`; `center_crop`: `int(round((height - crop) / 2.0))`.
    """
    short, long = min(image.size), max(image.size)
    longer = int(shorter * long / short)
    size = (shorter, longer) if image.width <= image.height else (longer, shorter)
    resized = image.resize(size, Image.Resampling.BILINEAR)
    top, left = round((size[1] - crop) / 2.0), round((size[0] - crop) / 2.0)
    return np.asarray(resized.crop((left, top, left + crop, top + crop)))


def transformers_crop(image, shorter, crop):
    """Return what the processors of transformers give, by their own functions."""
    height, width = get_resize_output_image_size(np.asarray(image), shorter, default_to_square=False)
    resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return center_crop(resized, (crop, crop))


LIBRARIES = {"torchvision": torchvision_crop, "down": transformers_crop}


@pytest.mark.parametrize("rounding", LIBRARIES)
def test_every_width_is_cropped_as_its_library_does(rounding):
    """Pictures of 16:9 and all others: the crop begins at the same pixel in the library, the step and the reference."""
    settings = ImagePreprocess(
        width=32, height=32, resize="shortest_edge_center_crop", resize_to=37, rounding=rounding, layout="NHWC"
    )
    for width in (*range(37, 160), 320, 640):
        pixels = noise(width, 90)
        expected = LIBRARIES[rounding](Image.fromarray(pixels), 37, 32)
        assert np.array_equal(by_the_step(png(pixels), settings)[0], expected), width
        assert np.array_equal(prepare(png(pixels), settings, "UINT8")[0][0], expected), width


def test_the_roundings_differ():
    """Else the field would be of no use: of a picture of 16:9 the crop begins one pixel further right."""
    pixels = noise(1280, 720)
    made = [
        prepare(png(pixels), ImagePreprocess(resize="shortest_edge_center_crop", rounding=rounding, **crop), "UINT8")[0]
        for rounding in ("torchvision", "down")
        for crop in ({"width": 224, "height": 224, "resize_to": 256},)
    ]
    assert not np.array_equal(*made)


def transparent(mode):
    """Return a PNG whose pixels are red and fully transparent."""
    file = io.BytesIO()
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    if mode == "P":
        image = Image.new("P", (8, 8), 3)
        image.putpalette([0, 0, 0] * 3 + [255, 0, 0])
        image.save(file, "PNG", transparency=3)
    else:
        (image.convert("LA") if mode == "LA" else image).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(("mode", "stored"), [("RGBA", (255, 0, 0)), ("P", (255, 0, 0)), ("LA", (76, 76, 76))])
@pytest.mark.parametrize("alpha", ["white", "drop"])
def test_transparency_is_shown_on_white_or_dropped(mode, stored, alpha):
    """`drop` is Pillow's `convert("RGB")`, which transformers' pipelines call."""
    expected = stored if alpha == "drop" else (255, 255, 255)
    picture = transparent(mode)
    step = decoding.upright_rgb(decoding.open_encoded(picture, 100), alpha)
    assert step.getpixel((4, 4)) == expected
    assert upright(picture, alpha).getpixel((4, 4)) == expected
    if alpha == "drop":
        assert np.array_equal(step, Image.open(io.BytesIO(picture)).convert("RGB"))


def test_grey_is_pillows_luma_and_normalised_by_one_value():
    settings = ImagePreprocess(
        width=20, height=10, resize="stretch", channel_order="GREY", scale=1.0, mean=[3.0], std=[2.0]
    )
    pixels = noise(20, 10)
    expected = (np.asarray(Image.fromarray(pixels).convert("L"), float) - 3) / 2
    assert np.allclose(prepare(png(pixels), settings, "FP32")[0][0, 0], expected)
    recipe = Recipe(20, 10, "stretch", scale=1.0, mean=(3.0,), std=(2.0,), channel_order="GREY")
    fitted, _ = imaging.fit(Image.fromarray(pixels), recipe)
    assert np.allclose(imaging.normalise(fitted, recipe)[0], expected)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            {"channel_order": "GREY", "mean": [0.0, 0.0, 0.0], "std": [1.0]},
            "a value for each channel, which are 1 in GREY",
        ),
        ({"mean": [0.5]}, "a value for each channel, which are 3 in RGB"),
        ({"resize": "letterbox_square"}, "letterbox_square needs width and height to be equal"),
        ({"resize": "stretch_center_crop"}, "resize_to: shortest_edge_center_crop, stretch_center_crop and"),
        ({"resize": "stretch_center_crop", "resize_to": 30.0}, "it must be at least width and height"),
    ],
)
def test_a_preparation_that_contradicts_itself_is_refused(change, named):
    with pytest.raises(ValueError, match=named):
        ImagePreprocess(**{"width": 40, "height": 20, "resize": "stretch", **change})
