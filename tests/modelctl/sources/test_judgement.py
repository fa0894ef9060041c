"""Answers that a person must judge: wrong recipes warn, right ones do not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from modelctl.models import spec as specs
from modelctl.models.steps import ImagePreprocess
from modelctl.reference.answers import Found
from modelctl.reference.examined import Examined, examine
from modelctl.reference.model import Reference, onnx_run
from modelctl.reference.pictures import Placement
from modelctl.reference.samples import inputs
from modelctl.sources import judgement, known_samples, preparation

MODELS = Path(__file__).resolve().parents[3] / "models"
PIXELS = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
"""ImageNet's, of values from 0 to 255."""
NONE = {"mean": [0.0] * 3, "std": [1.0] * 3}
SMALL = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


FRONT = ("Cast", "Transpose", "Gather", "Mul", "Add")


def without_front(path: Path) -> bytes:
    """Return a network that takes the numbers of its recipe; one that takes pixels begins with the recipe itself."""
    model = onnx.load(path)
    (entry,) = model.graph.input
    if entry.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
        last, front = entry.name, []
        for one in model.graph.node:
            if one.op_type in FRONT and last in one.input:
                last = one.output[0]
                front.append(one)
            elif one.op_type != "Constant":
                break
        for one in front:
            model.graph.node.remove(one)
        size = entry.type.tensor_type.shape.dim[1].dim_value
        entry.CopyFrom(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, ["N", 3, size, size]))
    return bytes(model.SerializeToString())


class Bundled:
    """A bundled model with the recipe of its authors, which can be changed."""

    def __init__(self, name: str, folder: Path) -> None:
        read = specs.read(MODELS / name / specs.FILE)
        assert isinstance(read, specs.ImageClassification | specs.ObjectDetection)
        path = folder / f"{name}.onnx"
        path.write_bytes(without_front(MODELS / read.network_name / "1" / "model.onnx"))
        (entry,) = onnx.load(path).graph.input
        image = read.network.inputs["image"].model_copy(update={"name": entry.name, "dtype": "FP32"})
        self.spec = read.model_copy(
            update={
                "preprocess": read.preprocess.model_copy(update={**SMALL, "layout": "NCHW"}),
                "network": read.network.model_copy(update={"inputs": {"image": image}}),
            }
        )
        self.labels = (MODELS / read.network_name / "labels.txt").read_text().rstrip("\n").split("\n")
        self.run = onnx_run(path, self.spec)

    def warnings(self, shift: int = 0, *, post: dict[str, Any] | None = None, **how: Any) -> list[str]:
        """Return the warnings on a recipe with changes; `shift` moves the labels."""
        parts = {
            "preprocess": self.spec.preprocess.model_copy(update=how),
            "postprocess": self.spec.postprocess.model_copy(update=post or {}),
        }
        spec = self.spec.model_copy(update=parts)
        labels = self.labels[shift:] + self.labels[:shift]
        reference = Reference(spec, labels, None, self.run)
        examined = {name: examine(reference, item) for name, item in inputs(True, None, None).items()}
        return [*preparation.contradictions(spec.preprocess), *judgement.judge(spec, labels, examined)]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    """Return the bundled classifier."""
    return Bundled("efficientnet_lite0", tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    """Return the bundled detector."""
    return Bundled("lite_detector", tmp_path_factory.mktemp("detector"))


def test_right_recipes_have_no_warning(classifier: Bundled, detector: Bundled) -> None:
    assert classifier.warnings() == []
    assert detector.warnings() == []
    assert moods() == []


def moods(shift: int = 0) -> list[str]:
    """Return the warnings on the bundled model of texts; `shift` moves its labels."""
    spec = specs.read(MODELS / "minilm_sentiment" / specs.FILE)
    assert isinstance(spec, specs.TextClassification)
    labels = ["negative", "neutral", "positive"]
    labels = labels[shift:] + labels[:shift]
    network = onnx_run(MODELS / spec.network_name / "1" / "model.onnx", spec)
    reference = Reference(spec, labels, MODELS / "minilm_sentiment_preprocess" / "tokenizer.json", network)
    examined = {name: examine(reference, item) for name, item in inputs(False, None, None).items()}
    return judgement.judge(spec, labels, examined)


def test_labels_of_moods_in_the_wrong_order_are_told() -> None:
    (told,) = moods(1)
    assert told.startswith(
        "'1: The pictures are sharp and the batte' is positive and is answered negative 0.896; '4: Op"
    )
    assert told.endswith(": check the order of --labels and --tokenizer first.")


WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "BGR for RGB, classifier": ("classifier", {"channel_order": "BGR"}),
    "BGR for RGB, detector": ("detector", {"channel_order": "BGR"}),
    "BGR for RGB, detector, mean turned too": (
        "detector",
        {"channel_order": "BGR", "mean": SMALL["mean"][::-1], "std": SMALL["std"][::-1]},
    ),
    "1 for 1/255": ("classifier", {"scale": 1.0}),
    "1 for 1/255, no mean": ("classifier", {"scale": 1.0, **NONE}),
    "1/255 twice": ("classifier", {"scale": 1 / 255**2, **NONE}),
    "mean and std of 0 to 255": ("classifier", PIXELS),
    "mean of 0 to 255, no std": ("detector", {**PIXELS, "std": [1.0] * 3}),
    "std missing": ("classifier", {"std": [1.0] * 3}),
    "labels shifted by one": ("classifier", {"shift": 1}),
    "labels of boxes shifted by one": ("detector", {"shift": 1}),
    "sigmoid for softmax": ("classifier", {"post": {"activation": "sigmoid"}}),
    "no activation": ("classifier", {"post": {"activation": "none"}}),
    "softmax of a head's probabilities": ("detector", {"post": {"activation": "softmax"}}),
    "pixels read as normalised": ("detector", {"post": {"box_unit": "normalized"}}),
    "decoded boxes decoded again": ("detector", {"post": {"encoded": True}}),
    "BGR for RGB, classifier, mean turned too": (
        "classifier",
        {"channel_order": "BGR", "mean": SMALL["mean"][::-1], "std": SMALL["std"][::-1]},
    ),
    "no mean and std": ("classifier", NONE),
    "stretched instead of cut": ("classifier", {"resize": "stretch", "resize_to": None}),
}
SILENT = {"BGR for RGB, classifier, mean turned too", "no mean and std", "stretched instead of cut"}
"""They make the scores worse and the first labels no others: nothing but more pictures would show them."""


def test_at_least_seven_of_nine_wrong_recipes_warn(
    classifier: Bundled, detector: Bundled, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every wrong recipe warns except those that keep the first label of every sample."""
    models = {"classifier": classifier, "detector": detector}
    warned = {name: models[model].warnings(**how) for name, (model, how) in WRONG.items()}
    silent = {name for name, warnings in warned.items() if not warnings}
    with capsys.disabled():
        print(f"\n{len(WRONG) - len(silent)} of {len(WRONG)} wrong recipes warn")
    assert silent <= SILENT
    assert (len(WRONG) - len(silent)) / len(WRONG) >= 7 / 9


SIDE = 100
PLACE = Placement((1.0, 1.0), (0.0, 0.0), (SIDE, SIDE), (SIDE, SIDE))
RNG = np.random.default_rng(5)


def ranked(*logits: list[float], activation: str = "softmax", labels: list[str] | None = None) -> list[str]:
    """Return the warnings on a classifier whose samples have these outputs."""
    spec = specs.ADAPTER.validate_python(
        {
            "name": "net",
            "task": "image-classification",
            "source": {"origin": "x"},
            "preprocess": {"width": 8, "height": 8, "resize": "stretch"},
            "network": {"inputs": {"image": {"name": "i"}}, "outputs": {"logits": {"name": "o", "dims": [1]}}},
            "postprocess": {"activation": activation},
        }
    )
    assert isinstance(spec, specs.ImageClassification)
    words = labels or [f"label {number}" for number in range(len(logits[0]))]
    reference = Reference(spec, words, None, lambda given: given)
    examined = {
        f"{number}.jpg": Examined(reference.read({"logits": np.array(one)}, PLACE), np.array(one), place=PLACE)
        for number, one in enumerate(logits)
    }
    return judgement.judge(spec, words, examined)


MANY = [float(value) for value in RNG.standard_normal(20)]
OTHER = [float(value) for value in RNG.standard_normal(20)]
SURE = [[30.0, 0, 0], [0, 30.0, 0], [0, 0, 40.0]]


@pytest.mark.parametrize(
    ("logits", "activation", "sentence"),
    [
        (SURE, "softmax", "Every sample's first score is exactly 1: check --activation, --scale, --mean,"),
        ([[0.9, 0.1, 0], [0.2, 0.8, 0]], "softmax", "The outputs are probabilities, which the softmax flattens"),
        ([[0.9, 0.2, 0.4], [0.2, 0.8, 0]], "sigmoid", "the sigmoid makes them 0.5 to 0.73: give --activation none."),
        ([[0.9, -3, 2], [0.2, 0.8, 0]], "none", "The outputs lie between -3 and 2 and are cut to 0 to 1"),
        ([[v / 9 for v in MANY], [v / 9 for v in OTHER]], "softmax", "Every sample's scores are flat (the first is"),
        ([[2.0, 0, -1], [2.5, 1, 0], [2, 1.0, 0]], "softmax", "Every sample is answered label 0 (0.665 to 0.844)"),
        (
            [[1.0, -1.0] * 10, [-1.0, 2.0] * 10],
            "sigmoid",
            "At least 10 of 20 classes have a score above 0.5: check --activation (softmax).",
        ),
    ],
)
def test_scores_that_cannot_be_right_are_told(logits: list[list[float]], activation: str, sentence: str) -> None:
    assert sentence in " ".join(ranked(*logits, activation=activation))


def test_ordinary_scores_have_no_warning() -> None:
    """Sure ones, unsure ones of few classes, and two classes of which all samples have one."""
    assert ranked([4.0, 0, 0], [0, 9.0, 0], [0.1, 0, 0.2]) == []
    assert ranked([0.9, 0.1], [0.7, 0.3], activation="none") == []
    assert ranked([-3.0] * 19 + [2.0], [2.0] + [-3.0] * 19, activation="sigmoid") == []


def detected(*boxes: list[list[float]], score: float = 0.7, post: dict[str, Any] | None = None) -> list[str]:
    """Return the warnings on an end-to-end detector of three classes whose samples have these rows of corners."""
    spec = specs.ADAPTER.validate_python(
        {
            "name": "net",
            "task": "object-detection",
            "source": {"origin": "x"},
            "preprocess": {"width": SIDE, "height": SIDE, "resize": "stretch"},
            "network": {"inputs": {"image": {"name": "i"}}, "outputs": {"head": {"name": "o", "dims": [-1, 6]}}},
            "postprocess": {"decoder": "end_to_end", **(post or {})},
        }
    )
    assert isinstance(spec, specs.ObjectDetection)
    labels = ["a", "b", "c"]
    examined = {}
    for number, one in enumerate(boxes):
        rows = [[*box, score, (number + index) % 3] for index, box in enumerate(one)]
        head = {"head": np.array(rows, np.float64).reshape(-1, 6)}

        class Fixed(Reference):
            def run(self, item: bytes, made: Any = head) -> Any:
                return made, PLACE

        examined[f"{number}.jpg"] = examine(Fixed(spec, labels, None, lambda given: given), b"")
    return judgement.judge(spec, labels, examined)


GOOD = [[10, 20, 50, 60], [30, 30, 90, 99]]


@pytest.mark.parametrize(
    ("boxes", "how", "sentence"),
    [
        ([[], []], {}, "No box in any sample, with a score threshold of 0.25: the weights, --scale"),
        (
            [GOOD, GOOD],
            {"post": {"max_detections": 2}},
            "2 of 2 samples have as many boxes as --max-detections allows (2)",
        ),
        ([GOOD], {"score": 1.0}, "All 2 scores are exactly 1: check --activation and --scale."),
        ([GOOD], {"score": 1.5}, "All 2 scores are exactly 1: check --activation and --scale."),
        (
            [[[0.1, 0.2, 0.5, 0.6], [0.3, 0.3, 0.9, 1.01]]],
            {},
            "All boxes (of 2 candidates) lie within 1 pixels of the network's upper left corner: check --box-unit",
        ),
        ([[[60, 50, 30, 30], [20, 20, 9, 9]]], {}, "2 of 2 candidates end before they begin"),
        (
            [[[60, 50, 160, 130], [-40, -20, 30, 9]]],
            {},
            "2 of 2 candidates lie outside the picture by more than a quarter",
        ),
        ([GOOD[:1], [], [], []], {}, None),
        ([GOOD], {}, None),
    ],
)
def test_boxes_that_cannot_be_right_are_told(boxes: Any, how: dict[str, Any], sentence: str | None) -> None:
    """Of a right head, nothing is told."""
    found = detected(*boxes, **how)
    assert found == [] if sentence is None else sentence in " ".join(found)


def test_one_class_in_every_sample_is_told() -> None:
    """Of three samples with boxes, all boxes of one class; the label depends on number and index, hence the empty."""
    spec_boxes = [GOOD[:1], [], [], GOOD[:1], [], [], GOOD[:1]]
    assert "Every box in 3 samples is a: check --decoder, --scale and the labels." in detected(*spec_boxes)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({**PIXELS, "scale": 1 / 255}, "The mean 123.675 is of values from 0 to 255, and the scale makes them 0 to 1"),
        ({**SMALL, "scale": 1.0}, "The mean 0.485 is of values from 0 to 1, and the scale leaves them 0 to 255"),
        ({"scale": 1.0, "std": [1 / 255] * 3}, "The network gets values of 0 to 6.5e+04: --scale, --mean and --std do"),
        ({"scale": 1 / 255, "std": [255.0] * 3}, "The network gets values of 0 to 0.00392 only: --scale 0.00392 and"),
        (
            {**SMALL, "channel_order": "BGR"},
            "The mean 0.485,0.456,0.406 is in the order RGB, and --channel-order is BGR",
        ),
        (
            {"scale": 1.0, "mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395]},
            "The mean 103.53,116.28,123.675 is in the order BGR, and --channel-order is RGB",
        ),
        ({**SMALL, "std": [1.0] * 3}, "The mean is ImageNet's and --std is 1: its usual std is 0.229,0.224,0.225."),
        ({**SMALL, "mean": [0.0] * 3}, "The std is ImageNet's and --mean is 0: its usual mean is 0.485,0.456,0.406."),
    ],
)
def test_numbers_that_contradict_each_other_are_told(how: dict[str, Any], sentence: str) -> None:
    found = preparation.contradictions(ImagePreprocess(width=8, height=8, resize="stretch", **how))
    assert len(found) == 1
    assert sentence in found[0]


@pytest.mark.parametrize(
    "how",
    [
        {"scale": 1 / 255},
        {"scale": 1.0},
        SMALL,
        {**PIXELS, "scale": 1.0},
        {"scale": 1.0, "mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395], "channel_order": "BGR"},
        {"scale": 1.0, "mean": [103.939, 116.779, 123.68], "channel_order": "BGR"},
        {"scale": 1 / 127.5, "mean": [1.0] * 3},
        {"scale": 1.0, "mean": [127.0] * 3, "std": [128.0] * 3},
        {"scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3},
        {"scale": 0.017, "mean": [2.1, 1.985, 1.765]},
        {"scale": 1 / 255, "mean": [0.344, 0.38, 0.408], "std": [0.2, 0.14, 0.12]},
        {"scale": 1 / 256, "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.268, 0.261, 0.275]},
    ],
)
def test_recipes_of_known_families_contradict_nothing(how: dict[str, Any]) -> None:
    """Ultralytics, YOLOX, torchvision, mmdetection, Caffe, TensorFlow, UltraFace, timm, MobileNet, EuroSAT, CLIP."""
    assert preparation.contradictions(ImagePreprocess(width=8, height=8, resize="stretch", **how)) == []


def known(labels: list[str], **answers: Found) -> list[str]:
    """Return what is said of a detector's answers to known samples."""
    examined = {f"{name}.jpg": Examined([one] if one.label else [], place=PLACE) for name, one in answers.items()}
    return known_samples._detector(labels, examined)  # the labels are all it needs of a spec


VOC = ["aeroplane", "cat", "person", *(f"thing {number}" for number in range(17))]


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (Found("cat", 1, 0.9, (0, 0, 90, 98)), None),
        (Found("Cat", 1, 0.9, (0, 0, 60, 98)), None),
        (Found("", 0, 0), "chelsea.jpg shows a cat and no box is found: check --channel-order, --scale, --mean"),
        (
            Found("person", 2, 0.5, (0, 0, 90, 98)),
            "chelsea.jpg shows a cat and is answered person 0.500 [0, 0, 90, 98]",
        ),
        (Found("cat", 1, 0.9, (0, 0, 20, 20)), "chelsea.jpg shows a cat elsewhere than cat 0.900 [0, 0, 20, 20]"),
    ],
)
def test_known_samples_of_a_detector(found: Found, sentence: str | None) -> None:
    """Class and place must be right; a detector of other classes is asked nothing."""
    said = known(VOC, chelsea=found)
    assert (said == []) if sentence is None else sentence in said[0]
    assert known(["cat", "dog"], chelsea=found) == []


def test_known_samples_of_a_classifier() -> None:
    """ImageNet's labels come with synonyms, WordNet numbers, underlines and a background."""
    assert known_samples.names("n02123045 tabby, tabby cat") == {"n02123045", "tabby", "tabby cat"}
    assert known_samples.names("Egyptian_cat") == {"egyptian cat"}
    assert known_samples.names("coffeepot") == {"coffeepot"}
    assert known_samples.names("n07920052") == {"n07920052"}


def test_a_dead_detector_of_known_classes_is_told_what_the_samples_show(detector: Bundled) -> None:
    warnings = detector.warnings(post={"score_threshold": 1.0})
    seen = "with a score threshold of 1, and they show a person, a cat, a cup of espresso: the weights, --scale"
    assert len(warnings) == 1
    assert seen in warnings[0]
    assert "--expect" not in warnings[0]


def options(**given: Any) -> argparse.Namespace:
    """Return the options of `add`, with some given."""
    names = ("resize", "scale", "mean", "std", "channel_order", "decoder")
    return argparse.Namespace(**{name: given.get(name) for name in names})


def test_an_option_that_contradicts_the_file_is_told() -> None:
    """What a file's exporter says of its pictures is seldom wrong; the same value, and no metadata, are fine."""
    file = {"resize": "letterbox_center", "scale": 1 / 255, "mean": [0.0] * 3, "std": [1.0] * 3, "decoder": "yolov8"}
    end = ": omit it unless the file is wrong."
    assert preparation.overruled(file, options(mean=[0.485, 0.456, 0.406], channel_order="BGR", decoder="yolov8")) == [
        f"--mean 0.485,0.456,0.406 overrules the file, which says 0,0,0{end}",
        f"--channel-order BGR overrules the file, which says RGB{end}",
    ]
    assert preparation.overruled(file, options(scale=1.0)) == [
        f"--scale 1 overrules the file, which says 0.003922{end}"
    ]
    assert preparation.overruled(file, options(scale=1 / 255, std=[1.0] * 3, resize="letterbox_center")) == []
    assert preparation.overruled({}, options(scale=1.0, resize="stretch", channel_order="BGR")) == []
