"""Candidates become the boxes of the answer, as in a slow loop over the definitions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from stages import boxes
from stages.boxes import Options
from stages.config import ConfigError, StepConfig
from stages.decoders import Head
from stages.serving import RefusalError

HEAD = Head("yolov5", ("output",), 416, 416)
GEOMETRY = np.array([0.5, 0.25, 10, 20], np.float32)
SIZE = np.array([700, 900], np.int32)
CLASSES = 5
LABELS = ["cat", "dog", "crane", "crane", "7"]


def head(seed: int, count: int = 300, classes: int = CLASSES) -> npt.NDArray[np.float32]:
    """Return a raw head with many overlaps: [count, 5 + classes]."""
    generator = np.random.default_rng(seed)
    places = np.concatenate([generator.uniform(-30, 440, (count, 2)), generator.uniform(20, 200, (count, 2))], axis=1)
    return np.asarray(np.concatenate([places, generator.uniform(0, 1, (count, 1 + classes))], axis=1), np.float32)


def detect(output: npt.NDArray[np.float32], options: Options, **more: Any) -> boxes.Boxes:
    """Detect with the geometry above."""
    return boxes.detect(
        {"output": output}, more.get("head", HEAD), options, GEOMETRY, SIZE, more.get("classes", CLASSES)
    )


def slow_iou(one: list[float], other: list[float]) -> float:
    """Return intersection over union."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


def slow(output: npt.NDArray[np.float32], options: Options) -> list[tuple[float, int, list[float]]]:
    """Detect one number at a time: score, class, clipped box."""
    found = []
    for row in output.tolist():
        classes = [row[4] * score for score in row[5:]]
        class_id = classes.index(max(classes))
        if classes[class_id] < options.score_threshold or (
            options.classes is not None and not options.classes[class_id]
        ):
            continue
        cx, cy, w, h = row[:4]
        scale_x, scale_y, pad_x, pad_y = GEOMETRY.tolist()
        box = [(cx - w / 2 - pad_x) / scale_x, (cy - h / 2 - pad_y) / scale_y]
        box += [(cx + w / 2 - pad_x) / scale_x, (cy + h / 2 - pad_y) / scale_y]
        clipped = [min(max(x, 0), limit) for x, limit in zip(box, [*SIZE, *SIZE], strict=True)]
        if clipped[2] > clipped[0] and clipped[3] > clipped[1]:
            found.append((classes[class_id], class_id, box, clipped))
    kept: list[tuple[float, int, list[float], list[float]]] = []
    for candidate in sorted(found, key=lambda one: -one[0]):
        if all(candidate[1] != other[1] or slow_iou(candidate[2], other[2]) <= options.iou_threshold for other in kept):
            kept.append(candidate)
    return [(score, class_id, clipped) for score, class_id, _, clipped in kept[: options.max_detections]]


@pytest.mark.parametrize("seed", range(20))
def test_boxes_are_those_of_a_slow_loop(seed: int) -> None:
    """Any thresholds and limit, with and without a class filter."""
    generator = np.random.default_rng(1000 + seed)
    chosen = generator.uniform(size=CLASSES) < 0.6 if seed % 2 else None
    options = Options(generator.uniform(0, 0.6), generator.uniform(0.05, 0.9), int(generator.integers(1, 200)), chosen)
    output = head(seed)
    expected = slow(output, options)
    actual = detect(output, options)
    assert actual.class_ids.tolist() == [class_id for _, class_id, _ in expected]
    np.testing.assert_allclose(actual.scores, [score for score, _, _ in expected], atol=1e-6)
    np.testing.assert_allclose(actual.boxes, np.reshape([box for *_, box in expected], (-1, 4)), atol=1e-2)


def test_results_have_the_types_of_their_tensors_even_when_there_are_none() -> None:
    """An empty answer has the same types."""
    for threshold, some in ((0.1, True), (1.0, False)):
        found = detect(head(0), Options(threshold, 0.5, 100))
        assert (len(found.scores) > 0) == some
        assert found.boxes.shape == (len(found.scores), 4)
        assert [array.dtype for array in found] == [np.float32, np.float32, np.int32]


def test_overlap_counts_within_a_class_only() -> None:
    """Objects of different classes may be in the same place."""
    output = np.zeros((3, 5 + CLASSES), np.float32)
    output[:, :5] = [200, 200, 50, 50, 1]
    output[0, 5], output[1, 5], output[2, 6] = 0.9, 0.8, 0.7
    found = detect(output, Options(0.5, 0.5, 100))
    assert found.class_ids.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])


def test_equal_scores_keep_the_order_of_the_head() -> None:
    """The answer to the same picture is the same every time."""
    output = np.zeros((4, 5 + CLASSES), np.float32)
    output[:, :6] = [[x, 200, 20, 20, 1, 0.5] for x in (300, 100, 200, 50)]
    found = detect(output, Options(0.5, 0.5, 100))
    assert found.boxes[:, 0].tolist() == [560, 160, 360, 60]


def test_a_class_filter_only_removes_boxes() -> None:
    """No box changes its class because the filter leaves its best class out."""
    output = head(3)
    everything = detect(output, Options(0.2, 0.5, 1000))
    wanted = np.array([False, True, False, True, False])
    chosen = detect(output, Options(0.2, 0.5, 1000, wanted))
    kept = wanted[everything.class_ids]
    assert 0 < kept.sum() < len(kept)
    assert chosen.scores.tolist() == everything.scores[kept].tolist()
    assert chosen.boxes.tolist() == everything.boxes[kept].tolist()


def test_boxes_outside_the_picture_are_dropped_and_suppress_nothing() -> None:
    """An invisible box must not suppress a visible one."""
    output = np.zeros((2, 5 + CLASSES), np.float32)
    output[0, :6] = [-20.5, 200, 60, 60, 1, 0.9]  # its right edge is left of the picture, which begins at 10
    output[1, :6] = [-10, 200, 60, 60, 1, 0.8]
    found = detect(output, Options(0.5, 0.5, 100))
    assert found.scores.tolist() == pytest.approx([0.8])
    assert found.boxes.tolist() == [[0, 600, 20, 840]]


@pytest.mark.parametrize(("width", "height"), [(0, 50), (50, 0), (-50, 50)])
def test_boxes_without_area_are_dropped(width: float, height: float) -> None:
    """A negative width is not a box, whatever the network means."""
    output = np.zeros((1, 5 + CLASSES), np.float32)
    output[0, :6] = [200, 200, width, height, 1, 0.9]
    assert detect(output, Options(0.5, 0.5, 100)).scores.tolist() == []


def test_the_largest_numbers_neither_overflow_nor_warn() -> None:
    """An absurdly large box is clipped like any other."""
    output = np.zeros((2, 5 + CLASSES), np.float32)
    output[:, :6] = [200, 200, 1e38, 1e38, 1, 0.9]
    assert detect(output, Options(0.5, 0.5, 100)).boxes.tolist() == [[0, 0, 700, 900]]


def test_heads_without_overlaps_are_not_suppressed() -> None:
    """End-to-end networks and queries suppress by themselves; the limit still holds."""
    rows = np.array([[50, 50, 90, 90, 0.6, 0], [50, 50, 90, 90, 0.9, 0], [50, 50, 90, 90, 0.7, 0]], np.float32)
    found = detect(rows, Options(0.5, 0.5, 2), head=Head("end_to_end", ("output",), 416, 416))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])


def test_a_class_without_a_label_is_a_fault_of_the_model() -> None:
    """The classes of an end-to-end head are known only when it runs."""
    rows = np.array([[50, 50, 90, 90, 0.9, 5]], np.float32)
    with pytest.raises(RefusalError, match="no label") as caught:
        detect(rows, Options(0.5, 0.5, 2), head=Head("end_to_end", ("output",), 416, 416))
    assert caught.value.code == "backend_error"


def test_the_worst_request_is_bounded() -> None:
    """Threshold 0, no suppression, a thousand boxes of one class, far more candidates than the limit."""
    output = head(0, 33_600, 1)
    started = time.process_time()
    found = detect(output, Options(0, 1, 1000), classes=1)
    assert time.process_time() - started < 1  # 0.13 s on a quiet machine
    assert found.scores.tolist() == np.sort(found.scores)[::-1].tolist()
    assert len(found.scores) == 1000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["cat"]', [0]),
        ('["cat", 1]', [0, 1]),
        ('["0", "dog"]', [0, 1]),
        ('["crane"]', [2, 3]),
        ('["7"]', [4]),  # a label before it is an id
        ("[4]", [4]),
    ],
)
def test_classes_are_labels_and_ids(text: str, expected: list[int]) -> None:
    """They may be mixed; a label that several classes share means all of them."""
    wanted = boxes.wanted_classes({"classes": text}, LABELS)
    assert wanted is not None
    assert np.flatnonzero(wanted).tolist() == expected


def test_no_choice_of_classes_is_all_of_them() -> None:
    """No filter is not an empty filter."""
    assert boxes.wanted_classes({}, LABELS) is None


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ('["unicorn"]', "'unicorn'"),
        ('["cat", "5"]', "'5'"),
        ("[5]", "'5'"),
        ("[-1]", "'-1'"),
        ("[true]", "'True'"),
        ("[1.5]", "'1.5'"),
        ('["²"]', "'²'"),
        ('["' + "9" * 5000 + '"]', "'" + "9" * 100 + "'"),
        ("[]", "JSON array"),
        ("{", "JSON array"),
        ('"cat"', "JSON array"),
        (3, "JSON array"),
    ],
)
def test_unknown_classes_are_named(value: object, named: str) -> None:
    """The sentence shows the caller which class is wrong."""
    with pytest.raises(RefusalError, match=named) as caught:
        boxes.wanted_classes({"classes": value}, LABELS)
    assert caught.value.code == "invalid_parameter"


def test_a_request_overrides_the_models_defaults() -> None:
    """One option at a time."""
    parameters = {"score_threshold": "0.3", "iou_threshold": "0.5", "max_detections": "50"}
    default = Options.from_config(StepConfig(parameters, {}, {}, Path()))
    assert default == Options(0.3, 0.5, 50)
    assert default.override({}, LABELS) == default
    asked = default.override({"score_threshold": 0, "iou_threshold": 1.0, "max_detections": 7}, LABELS)
    assert asked == Options(0, 1.0, 7)


@pytest.mark.parametrize(
    "options",
    [
        {"score_threshold": 1.5},
        {"score_threshold": float("nan")},
        {"iou_threshold": -0.1},
        {"iou_threshold": "0.5"},
        {"max_detections": 0},
        {"max_detections": 1001},
        {"max_detections": 5.0},
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    """The sentence names the option."""
    with pytest.raises(RefusalError, match=next(iter(options))) as caught:
        Options(0.3, 0.5, 50).override(options, LABELS)
    assert caught.value.code == "invalid_parameter"


def test_a_models_defaults_are_checked_when_it_loads() -> None:
    """A threshold of 30 instead of 0.3 must not simply return nothing."""
    with pytest.raises(ConfigError, match="score_threshold"):
        Options.from_config(StepConfig({"score_threshold": "30"}, {}, {}, Path()))


def test_boxes_of_pictures_of_any_size_are_scaled_to_the_picture() -> None:
    """Boxes in 0..1 of a network with free sizes become pixels of the original picture."""
    logits = np.array([[5, -5], [-5, 5]], np.float32)
    places = np.array([[0.5, 0.5, 0.2, 0.4], [0.25, 0.75, 0.5, 0.5]], np.float32)
    any_size = Head("detr", ("logits", "boxes"), 0, 0, "sigmoid", normalized=True)
    geometry = np.array([400 / 700, 514 / 900, 0, 0], np.float32)
    found = boxes.detect({"logits": logits, "boxes": places}, any_size, Options(0.5, 0.5, 10), geometry, SIZE, 2)
    np.testing.assert_allclose(found.boxes, [[280, 270, 420, 630], [0, 450, 350, 900]], atol=0.01)


def test_classes_suppress_each_other_when_asked() -> None:
    """With agnostic_nms two objects of different kinds in one place are one; the better stays."""
    output = np.zeros((2, 5 + CLASSES), np.float32)
    output[:, :5] = [200, 200, 50, 50, 1]
    output[0, 5], output[1, 6] = 0.8, 0.9
    assert detect(output, Options(0.5, 0.5, 100)).class_ids.tolist() == [1, 0]
    assert detect(output, Options(0.5, 0.5, 100, agnostic_nms=True)).class_ids.tolist() == [1]


def test_a_class_may_have_a_threshold_of_its_own() -> None:
    """It replaces the general one, whether it is lower or higher."""
    output = np.zeros((3, 5 + CLASSES), np.float32)
    output[:, :5] = [[100, 200, 20, 20, 1], [200, 200, 20, 20, 1], [300, 200, 20, 20, 1]]
    output[0, 5], output[1, 6], output[2, 7] = 0.35, 0.6, 0.6
    assert detect(output, Options(0.5, 0.5, 100)).class_ids.tolist() == [1, 2]
    own = Options(0.5, 0.5, 100, class_thresholds={0: 0.3, 1: 0.7})
    assert detect(output, own).class_ids.tolist() == [2, 0]


def test_thresholds_of_classes_come_from_the_model_or_the_request() -> None:
    """Those of a request replace all of the model's; labels and class ids are known as in `classes`."""
    config = StepConfig({"class_thresholds": '{"cat": 0.6, "1": 0.4}', "agnostic_nms": "true"}, {}, {}, Path())
    default = Options.from_config(config, LABELS)
    assert (default.class_thresholds, default.agnostic_nms) == ({0: 0.6, 1: 0.4}, True)
    assert default.override({}, LABELS) == default
    asked = default.override({"class_thresholds": '{"crane": 0.2}', "agnostic_nms": False}, LABELS)
    assert (asked.class_thresholds, asked.agnostic_nms) == ({2: 0.2, 3: 0.2}, False)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"class_thresholds": '{"unicorn": 0.5}'}, "class_thresholds names 'unicorn', which this model does not know"),
        ({"class_thresholds": '{"cat": 1.5}'}, "class_thresholds of 'cat' must be between 0 and 1"),
        ({"class_thresholds": '{"cat": true}'}, "class_thresholds of 'cat' must be between 0 and 1"),
        ({"class_thresholds": '["cat"]'}, "class_thresholds must be a JSON object"),
        ({"class_thresholds": "{"}, "class_thresholds must be a JSON object"),
        ({"class_thresholds": "[" * 9999}, "class_thresholds must be a JSON object"),
        ({"class_thresholds": 3}, "class_thresholds must be a JSON object"),
        ({"agnostic_nms": "yes"}, "agnostic_nms must be true or false"),
        ({"agnostic_nms": 1}, "agnostic_nms must be true or false"),
    ],
)
def test_thresholds_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    """The sentence names the option, and a model with such defaults does not load."""
    with pytest.raises(RefusalError, match=sentence) as caught:
        Options(0.3, 0.5, 50).override(options, LABELS)
    assert caught.value.code == "invalid_parameter"
    if isinstance(options.get("class_thresholds"), str):
        with pytest.raises(ConfigError, match="'class_thresholds' does not fit"):
            Options.from_config(StepConfig(options, {}, {}, Path()), LABELS)
