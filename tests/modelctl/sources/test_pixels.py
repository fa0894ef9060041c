"""`modelctl add` prepares pictures as a file's metadata, its family and its channels say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import networks
import numpy as np
import onnx
import pytest
from PIL import Image
from sample_files import labels, png, spec
from test_onnx import PICTURES, run, same_ranking, softmax

from modelctl.errors import CommandError
from modelctl.models import spec as specs
from modelctl.reference import limits
from modelctl.reference import served as checks
from modelctl.reference.agreement import SCORE
from modelctl.sources import metadata

Add = Callable[..., Any]
RAW = ("--scale", "1", "--mean", "0", "--std", "1")
GREY = {"Image.BitmapPixelFormat": "Gray8", "Image.NominalPixelRange": "NominalRange_0_255"}


@pytest.mark.parametrize("last", [False, True])
def test_grey_networks_answer_as_pillow_and_the_file(
    command: Any, served: Any, stack: Any, tmp_path: Path, last: bool
) -> None:
    """One channel, first or last: colour pictures become Pillow's luma, and one mean and std are enough."""
    path = networks.grey_classifier(tmp_path / "grey.onnx", last=last)
    how = ("--resize", "stretch", "--scale", "1", "--mean", "10", "--std", "2", "--labels", labels(tmp_path, 6))
    assert command("add", str(path), *how) == 0
    made, inside = spec(stack.models, "grey")["preprocess"], spec(stack.models, "grey")["network"]["folded"]
    assert (made["channel_order"], inside["mean"], inside["std"]) == ("GREY", [10.0], [2.0])
    assert command("verify", "grey") == 0
    for array in PICTURES:
        grey = Image.fromarray(array).convert("L").resize((32, 32), Image.Resampling.BILINEAR)
        tensor = ((np.asarray(grey, np.float32) - 10) / 2)[None, None]
        expected = softmax(run(path, pixels=tensor.transpose(0, 2, 3, 1) if last else tensor)[0][0])
        same_ranking(served.classify("grey", png(array), 6), expected)


def test_metadata_of_pictures_is_read_said_and_overruled(command: Any, stack: Any, tmp_path: Path) -> None:
    """Order and range come from the file; an option of the user goes before them."""
    path = networks.grey_classifier(tmp_path / "said.onnx", metadata=GREY)
    result = command.run("add", str(path), "--resize", "stretch", "--labels", labels(tmp_path, 6))
    assert result.code == 0, result.err
    note = "The file's metadata says: channels in the order GREY, values from 0 to 255."
    assert note in result.err
    assert note in (stack.models / "said" / "MODEL_CARD.md").read_text()
    assert spec(stack.models, "said")["preprocess"]["scale"] == 1.0
    options = ("--resize", "stretch", "--scale", "1/255", "--labels", labels(tmp_path, 6), "--name", "other")
    assert command("add", str(path), *options) == 0
    assert spec(stack.models, "other")["network"]["folded"]["scale"] == 1 / 255


def with_metadata(**said: str) -> onnx.ModelProto:
    """Return an empty network with entries of ONNX's image metadata."""
    model = onnx.ModelProto()
    onnx.helper.set_model_props(model, {f"Image.{name}": text for name, text in said.items()})
    return model


@pytest.mark.parametrize(
    ("layout", "nominal", "order", "black", "white"),
    [
        ("Bgr8", "NominalRange_0_255", "BGR", 0, 255),
        ("Rgb8", "Normalized_0_1", "RGB", 0, 1),
        ("Gray8", "Normalized_1_1", "GREY", -1, 1),
        ("Rgb8", "NominalRange_16_235", "RGB", 16, 235),
    ],
)
def test_a_nominal_range_maps_black_and_white(layout: str, nominal: str, order: str, black: int, white: int) -> None:
    known = metadata.facts(with_metadata(BitmapPixelFormat=layout, NominalPixelRange=nominal))
    assert known["channel_order"] == order
    made = [(value * known["scale"] - known["mean"][0]) / known["std"][0] for value in (0, 255)]
    assert made == pytest.approx([black, white])


def test_pixels_that_are_not_made_here_are_refused() -> None:
    with pytest.raises(CommandError, match=r"asks for pixels as Bgra8; served are Bgr8, Rgb8, Gray8: export it"):
        metadata.facts(with_metadata(BitmapPixelFormat="Bgra8"))
    with pytest.raises(CommandError, match=r"asks for values in Odd; served are NominalRange_0_255, .*: export it"):
        metadata.facts(with_metadata(NominalPixelRange="Odd"))
    (note,) = metadata.facts(with_metadata(ColorSpaceGamma="Linear"))["notes"]
    assert note == "The file's metadata says: linear light, while pictures are served as sRGB: check its answers."


def test_ultralytics_facts_are_returned() -> None:
    """Names, size, head and whether it suppresses boxes by itself, for whoever reads the head."""
    said = {"author": "Ultralytics", "task": "detect", "names": "{0: 'a'}", "imgsz": "[64, 96]"}
    model = onnx.ModelProto()
    onnx.helper.set_model_props(model, {**said, "end2end": "True", "head": "RTDETRDecoder"})
    known = metadata.facts(model)
    assert (known["labels"], known["size"], known["head"], known["end2end"]) == (
        ["a"],
        [64, 96],
        "RTDETRDecoder",
        "True",
    )
    assert (known["resample"], known["alpha"]) == ("opencv_linear", "drop")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--channel-order", "RGB"), "has 1 channel, which are not RGB: give --channel-order GREY"),
        (("--mean", "1,2,3"), "The network takes grey pictures, of one channel: give one value for --mean"),
    ],
)
def test_options_that_do_not_fit_grey_pictures(
    command: Any, tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    path = networks.grey_classifier(tmp_path / "grey.onnx")
    result = command.run("add", str(path), "--resize", "stretch", *RAW, "--labels", labels(tmp_path, 6), *options)
    assert (result.code, sentence in result.sentence) == (1, True), result.err


def test_a_colour_network_is_not_grey(command: Any, tmp_path: Path) -> None:
    path = networks.classifier(tmp_path / "colour.onnx")
    how = ("--resize", "stretch", *RAW, "--labels", labels(tmp_path, 6), "--channel-order", "GREY")
    result = command.run("add", str(path), *how)
    sentence = "has 3 channels, which are not GREY: give --channel-order RGB or BGR"
    assert (result.code, sentence in result.sentence) == (1, True), result.err


def test_one_channel_alone_is_not_taken_for_a_picture(command: Any, stack: Any, tmp_path: Path) -> None:
    """It may be a spectrogram: without options or metadata it is served by its tensors, and how to go on is said."""
    result = command.run("add", str(networks.grey_classifier(tmp_path / "unsaid.onnx")))
    assert result.code == 0, result.err
    assert spec(stack.models, "unsaid")["task"] == "none"
    assert "If its input is a grey picture, it can be served for pictures: add it with --labels FILE" in result.err


def test_a_dynamically_quantised_network_is_compared_on_the_served_tensor(
    command: Any, served: Any, stack: Any, tmp_path: Path
) -> None:
    """OpenCV's filter differs from the reference's by a grey level, which the network makes more of; it is served."""
    path = networks.grey_classifier(tmp_path / "dynamic.onnx", dynamic=True)
    how = ("--resize", "stretch", "--resample", "opencv_linear", *RAW, "--labels", labels(tmp_path, 6))
    assert command("add", str(path), *how) == 0
    result = command.run("verify", "dynamic", "--json")
    assert (result.code, '"levels": 1.0' in result.out, '"score": 0.01' in result.out) == (0, True, True), result.out
    array = PICTURES[0]
    grey = cv2.resize(np.asarray(Image.fromarray(array).convert("L")), (32, 32), interpolation=cv2.INTER_LINEAR)
    expected = softmax(run(path, pixels=grey[None, None].astype(np.float32))[0][0])
    same_ranking(served.classify("dynamic", png(array), 6), expected, 2e-2)


def test_verify_finds_a_step_that_prepares_otherwise(command: Any, stack: Any, tmp_path: Path) -> None:
    """The served step still resizes by another filter than model.yaml says: the network alone would agree."""
    path = networks.grey_classifier(tmp_path / "grey.onnx")
    assert command("add", str(path), "--resize", "stretch", *RAW, "--labels", labels(tmp_path, 6)) == 0
    file = stack.models / "grey" / "model.yaml"
    file.write_text(file.read_text().replace("resize: stretch", "resize: stretch\n  resample: nearest"))
    result = command.run("verify", "grey")
    assert (result.code, "0.25 grey levels in the prepared picture" in result.out) == (1, True), result.out
    with pytest.raises(CommandError, match=r"prepares pictures otherwise than its reference, by \d+ grey levels"):
        checks.check(specs.read(file), stack.models, int(stack.grpc))


def test_limits_follow_from_the_arithmetic(tmp_path: Path) -> None:
    assert limits.score_limit(networks.grey_classifier(tmp_path / "a.onnx")) == SCORE
    assert limits.score_limit(networks.grey_classifier(tmp_path / "b.onnx", dynamic=True)) == 0.01
