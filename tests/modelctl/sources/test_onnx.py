"""`modelctl add` on ONNX files: what is served is what Pillow, numpy and the file itself give, computed here anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnxruntime
import pytest
from onnx import helper
from PIL import Image
from sample_files import labels, png, spec
from skimage import data
from tokenizers import Tokenizer, models, pre_tokenizers

PICTURES = (data.astronaut(), data.coffee(), data.chelsea())
SINGLE = ("--activation", "softmax")
"""A text has one label."""
UNIT = ("--scale", "1/255", "--mean", "0", "--std", "1")
Add = Callable[..., Any]


def run(path: Path, **given: Any) -> list[Any]:
    """Run a file as it was given to `add`."""
    return list(onnxruntime.InferenceSession(str(path)).run(None, given))


def softmax(values: Any) -> Any:
    """Return probabilities of logits [C]."""
    powers = np.exp(values.astype(np.float64) - values.max())
    return powers / powers.sum()


def stretched(array: Any, width: int, height: int) -> Any:
    """Return a picture in the network's size, [height, width, 3]."""
    return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR))


def same_ranking(answer: list[tuple[str, float]], expected: Any, tolerance: float = 1e-3) -> None:
    """Hold labels `label <index>` with scores, best first, against an array of all scores."""
    assert expected.max() - expected.min() > 0.05, "the network's scores have no margins"
    for label, score in answer:
        assert abs(score - expected[int(label.split()[1])]) <= tolerance, (label, answer, expected)
    top = np.sort(expected)[::-1][: len(answer)]
    assert np.abs(top - [score for _, score in answer]).max() <= tolerance


def shapes(models: Path, name: str) -> list[list[Any]]:
    """Return the sizes of all inputs and outputs of a stored network, as ONNX Runtime reads them."""
    session = onnxruntime.InferenceSession(str(models / name / "1" / "model.onnx"))
    return [port.shape for port in (*session.get_inputs(), *session.get_outputs())]


def test_half_precision_in_bgr(command: Add, served: Any, tmp_path: Path) -> None:
    """FP16 in and out; mean and std are those of blue, green, red, in this order. Through the gateway."""
    path = networks.classifier(tmp_path / "half.onnx", dtype="float16")
    how = ("--resize", "stretch", "--scale", "1/255", "--mean", "0.1,0.2,0.3", "--std", "0.5,0.4,0.3")
    options = (*how, "--channel-order", "BGR", "--labels", labels(tmp_path, 6))
    assert command("add", str(path), *options, gateway=True) == 0
    for array in PICTURES:
        values = stretched(array, 32, 32)[:, :, ::-1] / 255
        tensor = ((values - [0.1, 0.2, 0.3]) / [0.5, 0.4, 0.3]).transpose(2, 0, 1)[None].astype(np.float16)
        expected = softmax(run(path, pixels=tensor)[0][0])
        answer = served.post(
            "classify", "half", content=png(array), headers={"Content-Type": "image/png"}, params={"top_k": 6}
        )
        same_ranking([(one["label"], one["score"]) for one in answer["predictions"]], expected)


def test_bytes_in_rows_with_a_background(command: Any, served: Any, stack: Any, tmp_path: Path) -> None:
    """UINT8 [N, 16, 24, 3] and 1001 classes for 1000 labels: class 0 is the background, and the crop is ours."""
    path = networks.bytes_classifier(tmp_path / "raw.onnx", classes=1001, height=16, width=24)
    how = ("--resize", "shortest_edge_center_crop", "--resize-to", "28")
    file = Path(labels(tmp_path, 1000))
    file.write_text("\ufeff" + file.read_text(), "utf-8")  # as some editors begin a file
    result = command.run("add", str(path), *how, "--labels", str(file))
    assert result.code == 0, result.err
    note = "The network has 1001 classes for 1000 labels: its first is taken for 'background'."
    assert note in result.err
    assert note in (stack.models / "raw" / "MODEL_CARD.md").read_text()
    for array in PICTURES:
        height, width = array.shape[:2]
        short = 28 / min(height, width)
        resized = stretched(array, int(width * short), int(height * short))
        top, left = round((resized.shape[0] - 16) / 2), round((resized.shape[1] - 24) / 2)  # as torchvision
        expected = softmax(run(path, pixels=resized[None, top : top + 16, left : left + 24])[0][0])
        answer = served.classify("raw", png(array), 1001)
        numbered = [("label 0" if name == "background" else f"label {int(name.split()[1]) + 1}") for name, _ in answer]
        assert len(set(numbered)) == 1001
        same_ranking(list(zip(numbered, [score for _, score in answer], strict=True)), expected)


@pytest.mark.parametrize(("inside", "largest"), [(True, 1), (False, 8)])
def test_a_batch_of_one(command: Add, served: Any, stack: Any, tmp_path: Path, inside: bool, largest: int) -> None:
    """A batch declared as one is freed: for batches where the graph allows it, else for single items."""
    path = networks.classifier(tmp_path / "one.onnx", batch=1, fixed_inside=inside)
    options = ("--resize", "stretch", *UNIT, "--labels", labels(tmp_path, 6))
    assert command("add", str(path), *options) == 0
    assert served.config("one_network").max_batch_size == largest
    given, made = shapes(stack.models, "one_network")
    assert (type(given[0]), given[1:], type(made[0]), made[1:]) == (str, [32, 32, 3], str, [6])
    for array in PICTURES:
        expected = softmax(run(path, pixels=planes(array, 32))[0][0])
        same_ranking(served.classify("one", png(array), 6), expected)


def planes(array: Any, side: int) -> Any:
    """Return a stretched picture as FP32 [1, 3, side, side] of 0 to 1."""
    return (stretched(array, side, side) / 255).transpose(2, 0, 1)[None].astype(np.float32)


def test_classes_in_a_square_of_one(command: Add, served: Any, stack: Any, tmp_path: Path) -> None:
    """An output [N, C, 1, 1] is served as [N, C]."""
    path = networks.classifier(tmp_path / "square.onnx", ending="square")
    assert command("add", str(path), "--resize", "stretch", *UNIT, "--labels", labels(tmp_path, 6)) == 0
    assert shapes(stack.models, "square_network")[1][1:] == [6]
    for array in PICTURES:
        expected = softmax(run(path, pixels=planes(array, 32))[0][0, :, 0, 0])
        same_ranking(served.classify("square", png(array), 6), expected)


def test_probabilities_are_seen_and_logits_are_not_taken_for_them(
    command: Add, served: Any, stack: Any, tmp_path: Path
) -> None:
    """A softmax in the graph is not followed by another."""
    for ending, activation in (("probabilities", "none"), ("logits", "softmax")):
        path = networks.classifier(tmp_path / f"{ending}.onnx", ending=ending)
        assert command("add", str(path), "--resize", "stretch", *UNIT, "--labels", labels(tmp_path, 6)) == 0
        assert spec(stack.models, ending).get("postprocess", {}).get("activation", "softmax") == activation
    sure = tmp_path / "probabilities.onnx"
    for array in PICTURES:
        expected = run(sure, pixels=planes(array, 32))[0][0]
        for name in ("probabilities", "logits"):
            same_ranking(served.classify(name, png(array), 6), expected)


@pytest.mark.parametrize(
    ("ending", "activation", "classes"), [("sigmoid", "none", 6), ("logits", "sigmoid", 1), ("sigmoid", "none", 1)]
)
def test_each_class_by_itself(
    command: Add, served: Any, tmp_path: Path, ending: str, activation: str, classes: int
) -> None:
    """Scores that do not sum to 1, of several classes or of one, are served as the user says they are."""
    path = networks.classifier(tmp_path / "own.onnx", ending=ending, classes=classes)
    options = ("--resize", "stretch", *UNIT, "--labels", labels(tmp_path, classes), "--activation", activation)
    assert command("add", str(path), *options) == 0
    found = []
    for array in PICTURES:
        expected = run(path, pixels=planes(array, 32))[0][0].astype(np.float64)
        expected = expected if ending == "sigmoid" else 1 / (1 + np.exp(-expected))
        answer = served.classify("own", png(array), classes)
        assert all(abs(score - expected[int(label.split()[1])]) <= 1e-3 for label, score in answer)
        found += [score for _, score in answer]
    assert max(found) - min(found) > 0.01


def test_pictures_of_every_size(command: Add, served: Any, stack: Any, tmp_path: Path) -> None:
    """The shorter side is 40 pixels, and the longer as long as the picture makes it."""
    path = networks.any_size(tmp_path / "free.onnx")
    how = ("--resize", "shortest_edge", "--resize-to", "40", "--longest-edge", "100")
    assert command("add", str(path), *how, *UNIT, "--labels", labels(tmp_path, 6)) == 0
    assert shapes(stack.models, "free_network")[0][1:] == ["height", "width", 3]
    assert "tensorrt" not in spec(stack.models, "free")["network"], "a plan would need to be told the sizes"
    for array in PICTURES:
        height, width = array.shape[:2]
        short = min(height, width)
        resized = stretched(array, int(width * 40 / short), int(height * 40 / short))
        expected = softmax(run(path, pixels=(resized / 255).transpose(2, 0, 1)[None].astype(np.float32))[0][0])
        same_ranking(served.classify("free", png(array), 6), expected)


Boxes = list[tuple[str, float, list[float]]]


def overlap(one: Any, other: Any) -> float:
    """Return the intersection over union of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common)


def best(boxes: Any, scores: Any, classes: Any, most: float) -> list[int]:
    """Return the indices that greedy suppression within each class leaves, best first."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        rivals = [other for other in kept if classes[other] == classes[index]]
        if scores[index] >= 0.25 and all(overlap(boxes[index], boxes[other]) <= most for other in rivals):
            kept.append(int(index))
    return kept


def in_picture(array: Any, boxes: Any, scores: Any, classes: Any, scale: Any, offset: Any, most: float = 0.45) -> Boxes:
    """Return suppressed boxes [k, cx, cy, w, h] of the tensor in the picture's pixels, cut to it."""
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
    places = (corners - np.tile(offset, 2)) / np.tile(scale, 2)
    height, width = array.shape[:2]
    found = []
    for index in best(places, scores, classes, most):
        box = places[index].clip(0, [width, height, width, height])
        if (box[2:] > box[:2]).all():
            found.append((f"label {classes[index]}", float(scores[index]), box.tolist()))
    return found


def same_boxes(answer: Boxes, expected: Boxes, tolerance: float = 1e-3) -> None:
    """Hold each box against one of its class: scores to `tolerance`, sides to a pixel; none may be left over."""
    assert len(expected) >= 2, "the network finds nothing that could be compared"
    left = list(answer)
    for label, score, box in expected:
        fits = [
            one
            for one in left
            if one[0] == label and abs(one[1] - score) <= tolerance and np.abs(np.array(one[2]) - box).max() <= 1
        ]
        assert fits, ((label, score, box), answer)
        left.remove(fits[0])
    assert left == []


def test_yolox_with_boxes_relative_to_their_cells(command: Add, served: Any, stack: Any, tmp_path: Path) -> None:
    """YOLOX's own export: BGR of 0 to 255, a picture in the upper left corner, boxes undecoded, which is noticed."""
    path = networks.yolox(tmp_path / "yolox.onnx")
    how = ("--resize", "letterbox", "--scale", "1", "--mean", "0", "--std", "1", "--channel-order", "BGR")
    options = ("--decoder", "yolox", "--labels", labels(tmp_path, 3), "--resample", "bilinear")
    assert command("add", str(path), *how, *options, gateway=True) == 0
    assert spec(stack.models, "yolox")["postprocess"]["encoded"] is True
    for array in PICTURES:
        height, width = array.shape[:2]
        ratio = min(64 / width, 64 / height)
        size = (int(width * ratio), int(height * ratio))
        canvas = np.full((64, 64, 3), 114, np.uint8)
        canvas[: size[1], : size[0]] = stretched(array, *size)
        head = run(path, images=canvas[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32))[0][0].astype(float)
        cells = [(x, y, s) for s in (8, 16, 32) for y in range(64 // s) for x in range(64 // s)]
        x, y, stride = np.array(cells, float).T
        boxes = np.stack(
            [(head[:, 0] + x) * stride, (head[:, 1] + y) * stride, *(np.exp(head[:, 2:4]).T * stride)], axis=1
        )
        classes = head[:, 5:].argmax(axis=1)
        scores = head[:, 4] * head[:, 5:].max(axis=1)
        expected = in_picture(array, boxes, scores, classes, np.array(size) / (width, height), (0, 0))
        answer = served.post("detect", "yolox", content=png(array), headers={"Content-Type": "image/png"})
        sides = ("xmin", "ymin", "xmax", "ymax")
        same_boxes(
            [(one["label"], one["score"], [one["box"][side] for side in sides]) for one in answer["predictions"]],
            expected,
        )


def letterboxed(array: Any, side: int, resize: Callable[..., Any] = stretched) -> tuple[Any, Any, tuple[int, int]]:
    """Return a picture in the middle of a grey square, its scale (x, y) and its corner."""
    height, width = array.shape[:2]
    ratio = min(side / width, side / height)
    size = (round(width * ratio), round(height * ratio))
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    canvas = np.full((side, side, 3), 114, np.uint8)
    canvas[top : top + size[1], left : left + size[0]] = resize(array, *size)
    return canvas, np.array(size) / (width, height), (left, top)


@pytest.mark.parametrize("free", [False, True])
def test_yolo_with_a_transposed_head(command: Add, served: Any, stack: Any, tmp_path: Path, free: bool) -> None:
    """YOLOv8 and later; a network for any size is fixed to the one that is asked for, and its output with it."""
    path = networks.yolo(tmp_path / "yolo.onnx", free=free)
    sizes = ("--size", "64", "64") if free else ()
    how = ("--resize", "letterbox_center", "--resample", "bilinear", *UNIT, *sizes)
    assert command("add", str(path), *how, "--decoder", "yolov8", "--labels", labels(tmp_path, 3)) == 0
    assert [shape[1:] for shape in shapes(stack.models, "yolo_network")] == [[64, 64, 3], [7, 16]]
    for array in PICTURES:
        canvas, scale, corner = letterboxed(array, 64)
        head = run(path, images=(canvas / 255).transpose(2, 0, 1)[None].astype(np.float32))[0][0].T.astype(float)
        expected = in_picture(array, head[:, :4], head[:, 4:].max(1), head[:, 4:].argmax(1), scale, corner)
        same_boxes(served.detect("yolo", png(array)), expected)


def test_boxes_without_suppression(command: Any, served: Any, tmp_path: Path) -> None:
    """Rows of corners, score and class are taken as they are; a class beyond the labels is refused."""
    path = networks.end_to_end(tmp_path / "whole.onnx")
    how = ("--resize", "letterbox_center", "--resample", "bilinear", *UNIT, "--decoder", "end_to_end")
    refused = command.run("add", str(path), *how, "--labels", labels(tmp_path, 2))
    assert (refused.code, "and there are 2 labels: give all" in refused.sentence) == (1, True), refused.err
    assert command("add", str(path), *how, "--labels", labels(tmp_path, 3)) == 0
    for array in PICTURES:
        canvas, scale, corner = letterboxed(array, 64)
        rows = run(path, images=(canvas / 255).transpose(2, 0, 1)[None].astype(np.float32))[0][0].astype(float)
        height, width = array.shape[:2]
        boxes = ((rows[:, :4] - np.tile(corner, 2)) / np.tile(scale, 2)).clip(0, [width, height, width, height])
        expected = [
            (f"label {int(row[5])}", row[4], box.tolist())
            for row, box in zip(rows, boxes, strict=True)
            if row[4] >= 0.25 and (box[2:] > box[:2]).all()
        ]
        same_boxes(served.detect("whole", png(array)), expected)


def test_a_network_without_a_task_is_served_by_its_tensors(
    command: Add, served: Any, stack: Any, tmp_path: Path
) -> None:
    """Two inputs, two outputs, one of any length; batches, and other lengths in one batch's place."""
    path = networks.two_towers(tmp_path / "towers.onnx")
    assert command("add", str(path), "--license", "MIT") == 0
    assert spec(stack.models, "towers")["task"] == "none"
    assert spec(stack.models, "towers")["source"]["license"] == "MIT"
    source = np.random.default_rng(1)
    for items, length in ((1, 4), (3, 7)):
        given = {"a": source.random((items, 3), np.float32), "index": source.integers(0, 8, (items, length))}
        made = served.tensors("towers", given, ("sum", "picked"))
        for name, expected in zip(("sum", "picked"), run(path, **given), strict=True):
            np.testing.assert_allclose(made[name], expected, rtol=1e-5)


WORDS = ["[PAD]", "[UNK]", "the", "company", "expects", "sales", "to", "fall", "profit", "rose", "a", "good", "year"]


def tokenizer(folder: Path) -> str:
    """Write a tokenizer of whole words; return its path."""
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(folder / "tokenizer.json"))
    return str(folder / "tokenizer.json")


@pytest.mark.parametrize("kind", ["int64", "int32"])
def test_texts(command: Add, served: Any, stack: Any, tmp_path: Path, kind: str) -> None:
    """Words are looked up, padding does not count, and a long text is cut."""
    path = networks.reader(
        tmp_path / "reader.onnx", vocabulary=len(WORDS), kind=helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    )
    options = ("--tokenizer", tokenizer(tmp_path), "--labels", labels(tmp_path, 3), "--max-length", "12", *SINGLE)
    assert command("add", str(path), *options) == 0
    for text in ("the company expects sales to fall", "profit rose", "a good year " * 8):
        ids = np.array([[WORDS.index(word) if word in WORDS else 1 for word in text.split()][:12]], kind)
        expected = softmax(run(path, input_ids=ids, attention_mask=np.ones_like(ids))[0][0])
        same_ranking(list(served.read("reader", text).items()), expected)
