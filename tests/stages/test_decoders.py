"""Every family of heads is decoded like slow loops over its definition."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from stages.config import ConfigError, StepConfig, Tensor
from stages.decoders.candidates import grid
from stages.decoders.head import Head
from stages.serving import RefusalError

WIDTH, HEIGHT = 64, 48
Found = list[tuple[list[float], float, int]]
Rows = npt.NDArray[np.float32]


def config(inputs: dict[str, tuple[int, ...]], **parameters: str) -> StepConfig:
    """Return the configuration of a postprocess step."""
    beside = {"geometry": Tensor("FP32", (4,)), "image_size": Tensor("INT32", (2,))}
    tensors = {name: Tensor("FP32", dims) for name, dims in inputs.items()} | beside
    return StepConfig({"width": str(WIDTH), "height": str(HEIGHT), **parameters}, tensors, {}, None)  # type: ignore[arg-type]


def head(inputs: dict[str, Rows], **parameters: str) -> Head:
    """Return the head that a step with this configuration reads."""
    return Head.of(config({name: array.shape for name, array in inputs.items()}, **parameters))


def decoded(inputs: dict[str, Rows], threshold: float, **parameters: str) -> Found:
    """Return the head's candidates as plain numbers."""
    found = head(inputs, **parameters).decode(inputs, threshold)
    assert [array.dtype for array in found] == [np.float32, np.float32, np.int32]
    return list(zip(found.boxes.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True))


def same(actual: Found, expected: Found) -> None:
    """Compare two lists of candidates in order."""
    assert len(actual) == len(expected) > 0
    for (box, score, class_id), (other_box, other_score, other_id) in zip(actual, expected, strict=True):
        assert class_id == other_id
        assert score == pytest.approx(other_score, abs=1e-6)
        assert box == pytest.approx(other_box, rel=1e-5, abs=1e-4)


def corners(cx: float, cy: float, w: float, h: float) -> list[float]:
    """Return a box by its corners."""
    return [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]


def logistic(x: float) -> float:
    """Return the logistic function, for moderate numbers."""
    return 1 / (1 + math.exp(-x))


def rows_of(generator: np.random.Generator, count: int, scores: int) -> Rows:
    """Return rows of cx, cy, w, h in pixels and scores in 0..1."""
    places = generator.uniform(0, 60, (count, 4))
    return np.asarray(np.concatenate([places, generator.uniform(0, 1, (count, scores))], axis=1), np.float32)


def slow_objectness(rows: Rows, threshold: float, activation: Callable[[float], float] = lambda x: x) -> Found:
    """Decode rows with objectness one number at a time."""
    found = []
    for row in rows.tolist():
        classes = [activation(row[4]) * activation(score) for score in row[5:]]
        class_id = max(range(len(classes)), key=lambda index: (classes[index], -index))
        if classes[class_id] >= threshold:
            found.append((corners(*row[:4]), classes[class_id], class_id))
    return found


@pytest.mark.parametrize("decoder", ["yolov5", "yolox"])
@pytest.mark.parametrize("seed", range(5))
def test_heads_with_objectness(decoder: str, seed: int) -> None:
    """The score is objectness times the best class; the step may apply the activations."""
    rows = rows_of(np.random.default_rng(seed), 200, 1 + 7)
    same(decoded({"output": rows}, 0.4, decoder=decoder), slow_objectness(rows, 0.4))
    rows[:, 4:] = 8 * rows[:, 4:] - 4
    found = decoded({"output": rows}, 0.4, decoder=decoder, activation="sigmoid")
    same(found, slow_objectness(rows, 0.4, logistic))


@pytest.mark.parametrize("seed", range(5))
def test_transposed_heads_without_objectness(seed: int) -> None:
    """YOLOv8 and its successors: the score is that of the best class."""
    rows = rows_of(np.random.default_rng(seed), 200, 7)
    with_objectness = np.insert(rows, 4, 1, axis=1)
    columns = np.ascontiguousarray(rows.T)
    same(decoded({"output0": columns}, 0.9, decoder="yolov8"), slow_objectness(with_objectness, 0.9))


def test_boxes_relative_to_their_cells() -> None:
    """Raw YOLOX: offset plus cell times stride, exponential of the size times stride, level by level."""
    generator = np.random.default_rng(0)
    cells = [(x, y, s) for s in (8, 16, 32) for y in range(HEIGHT // s) for x in range(WIDTH // s)]
    rows = rows_of(generator, len(cells), 1 + 4)
    rows[:, :4] = generator.uniform(-1, 1, (len(cells), 4))
    plain = rows.copy()
    for row, (x, y, stride) in zip(plain, cells, strict=True):
        row[:2] = [(row[0] + x) * stride, (row[1] + y) * stride]
        row[2:4] = [math.exp(row[2]) * stride, math.exp(row[3]) * stride]
    same(decoded({"output": rows}, 0.3, decoder="yolox", encoded="true"), slow_objectness(plain, 0.3))
    assert grid(WIDTH, HEIGHT, (8, 16, 32)).tolist() == [list(cell) for cell in cells]


def test_cells_that_do_not_fit_the_output_are_refused() -> None:
    """Other strides would put every box elsewhere."""
    rows = rows_of(np.random.default_rng(0), 10, 1 + 4)
    with pytest.raises(RefusalError, match="strides"):
        decoded({"output": rows}, 0.3, decoder="yolox", encoded="true")


@pytest.mark.parametrize("seed", range(5))
def test_queries_with_a_class_for_no_object(seed: int) -> None:
    """DETR: softmax over all classes, of which the last never counts; boxes are fractions of the input."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (50, 6)).astype(np.float32)
    boxes = generator.uniform(0, 1, (50, 4)).astype(np.float32)
    expected = []
    for row, (cx, cy, w, h) in zip(logits.tolist(), boxes.tolist(), strict=True):
        total = sum(math.exp(x) for x in row)
        shares = [math.exp(x) / total for x in row[:-1]]
        if max(shares) >= 0.5:
            place = corners(cx * WIDTH, cy * HEIGHT, w * WIDTH, h * HEIGHT)
            expected.append((place, max(shares), shares.index(max(shares))))
    same(decoded({"logits": logits, "boxes": boxes}, 0.5, decoder="detr"), expected)


@pytest.mark.parametrize("seed", range(5))
def test_queries_with_independent_classes(seed: int) -> None:
    """RT-DETR: the best pairs of query and class, as many as queries, so a box may have two classes."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (20, 6)).astype(np.float32)
    boxes = generator.uniform(0, 1, (20, 4)).astype(np.float32)
    pairs = [(logistic(logits[q, c]), q, c) for q in range(20) for c in range(6)]
    expected = []
    for score, query, class_id in sorted(pairs, key=lambda pair: -pair[0])[:20]:
        cx, cy, w, h = boxes[query].tolist()
        if score >= 0.6:
            expected.append((corners(cx * WIDTH, cy * HEIGHT, w * WIDTH, h * HEIGHT), score, class_id))
    same(decoded({"logits": logits, "boxes": boxes}, 0.6, decoder="detr", activation="sigmoid"), expected)


def test_rows_that_are_boxes_already() -> None:
    """End to end: corners, score, class; rows of class -1 are padding, whatever else they hold."""
    rows = np.array(
        [[1, 2, 3, 4, 0.9, 2], [5, 6, 7, 8, 0.2, 1], [0, 0, 0, 0, -1, -1], [2, 2, 9, 9, 0.5, 0]], np.float32
    )
    expected: Found = [([1, 2, 3, 4], 0.9, 2), ([2, 2, 9, 9], 0.5, 0)]
    same(decoded({"output": rows}, 0.5, decoder="end_to_end"), expected)
    assert len(decoded({"output": rows}, 0, decoder="end_to_end")) == 3


def test_boxes_may_be_shares_of_the_input() -> None:
    """box_unit normalized multiplies by the network's size."""
    rows = np.array([[0.25, 0.5, 0.5, 1, 0.9, 0]], np.float32)
    expected: Found = [([0.25 * WIDTH, 0.5 * HEIGHT, 0.5 * WIDTH, HEIGHT], 0.9, 0)]
    same(decoded({"output": rows}, 0.5, decoder="end_to_end", box_unit="normalized"), expected)


def test_a_score_on_the_threshold_is_kept() -> None:
    """At least the threshold, not more than it."""
    rows = np.array([[0, 0, 9, 9, 0.5, 0]], np.float32)
    assert len(decoded({"output": rows}, 0.5, decoder="end_to_end")) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(("decoder", "shape"), [("yolov5", (9, 8)), ("yolov8", (8, 9)), ("end_to_end", (9, 6))])
def test_output_that_is_not_finite_is_refused(decoder: str, shape: tuple[int, int], bad: float) -> None:
    """Even below the threshold: the rest of such an answer cannot be trusted."""
    output = np.zeros(shape, np.float32)
    output[-1, -1] = bad
    with pytest.raises(RefusalError) as caught:
        decoded({"output": output}, 0.5, decoder=decoder)
    assert caught.value.code == "backend_error"


def test_a_size_that_overflows_is_refused() -> None:
    """The exponential of 1000 is not a width."""
    cells = len(grid(WIDTH, HEIGHT, (8, 16, 32)))
    rows = np.ones((cells, 6), np.float32)
    rows[0, 2] = 1000
    with pytest.raises(RefusalError, match="not finite"):
        decoded({"output": rows}, 0.5, decoder="yolox", encoded="true")


@pytest.mark.parametrize(
    ("inputs", "parameters", "classes"),
    [
        ({"output": (3549, 85)}, {"decoder": "yolox"}, 80),
        ({"output": (84, 8400)}, {"decoder": "yolov8"}, 80),
        ({"logits": (100, 92), "boxes": (100, 4)}, {"decoder": "detr"}, 91),
        ({"logits": (300, 80), "boxes": (300, 4)}, {"decoder": "detr", "activation": "sigmoid"}, 80),
        ({"output": (300, 6)}, {"decoder": "end_to_end"}, -1),
        ({"output": (-1, -1)}, {"decoder": "yolov5"}, -1),
        ({"output": (300, 84)}, {"decoder": "rtdetr"}, 80),
        ({"boxes": (9, 4), "scores": (9, 3)}, {"decoder": "scored_boxes", "background": "true"}, 2),
        ({"boxes": (9, 4), "scores": (9,), "classes": (9,)}, {"decoder": "detections"}, -1),
        ({"output": (2125, 36)}, {"decoder": "nanodet_plus"}, 4),
        ({"output": (10, 32, 32)}, {"decoder": "fastestdet"}, 5),
    ],
)
def test_the_number_of_classes_follows_from_the_dims(
    inputs: dict[str, tuple[int, ...]], parameters: dict[str, str], classes: int
) -> None:
    """So a labels file of another length keeps the model from loading."""
    step = config(inputs, **parameters)
    assert Head.of(step).classes(step) == classes


@pytest.mark.parametrize(
    ("inputs", "parameters", "sentence"),
    [
        ({"output": (9, 9)}, {"decoder": "yolov4"}, "'decoder' must be one of"),
        ({"output": (9, 9)}, {"decoder": "detr"}, "'logits' and 'boxes'"),
        ({"logits": (9, 9), "boxes": (9, 4)}, {"decoder": "yolov5"}, "one input"),
        (
            {"output": (9, 9)},
            {"decoder": "yolov5", "activation": "softmax"},
            "for the decoders 'detr' and 'scored_boxes' only",
        ),
        ({"output": (9, 9)}, {"decoder": "yolov5", "encoded": "true"}, "for the decoder 'yolox' only"),
        ({"output": (9, 9)}, {"decoder": "yolox", "strides": "8,x"}, "'strides'"),
        ({"output": (9, 9)}, {"decoder": "yolox", "width": "0"}, "width and height"),
        (
            {"output": (9, 9)},
            {"decoder": "yolov8", "box_format": "yxyx"},
            "'box_format' is not for the decoder 'yolov8'",
        ),
        (
            {"output": (9, 7)},
            {"decoder": "end_to_end", "columns": "box,score"},
            "'columns' must name box, score, class",
        ),
        ({"output": (9, 20)}, {"decoder": "yolofastestv2", "anchors": "1,2"}, "anchors must be a width and a height"),
        ({"output": (9, 20)}, {"decoder": "yolofastestv2", "anchors": "x"}, "'anchors' must be numbers"),
        ({"boxes": (9, 4), "scores": (9,)}, {"decoder": "detections"}, "'boxes' and 'scores' and 'classes'"),
    ],
)
def test_a_head_that_makes_no_sense_keeps_the_model_from_loading(
    inputs: dict[str, tuple[int, ...]], parameters: dict[str, str], sentence: str
) -> None:
    """The sentence says which values do not fit."""
    with pytest.raises(ConfigError, match=sentence):
        Head.of(config(inputs, **parameters))


@pytest.mark.parametrize(
    ("decoder", "shape", "parameters"),
    [
        ("nanodet", (9, 34), {}),
        ("nanodet_plus", (9, 34), {}),
        ("yolofastestv2", (9, 17), {"anchors": ",".join(["9"] * 12)}),
    ],
)
def test_rows_that_are_not_the_cells_of_the_input_are_refused(
    decoder: str, shape: tuple[int, int], parameters: dict[str, str]
) -> None:
    """Other strides would put every box elsewhere."""
    with pytest.raises(RefusalError, match="does not fit its strides"):
        decoded({"output": np.zeros(shape, np.float32)}, 0.3, decoder=decoder, **parameters)


def test_rows_behind_the_count_are_not_read() -> None:
    """TensorFlow Lite leaves anything there; a count beyond the rows is all of them."""
    boxes = np.array([[1, 2, 30, 40], [5, 6, 30, 40]], np.float32)
    tensors = {"boxes": boxes, "scores": np.array([0.9, 0.8], np.float32), "classes": np.array([1, 0], np.int32)}
    for count, expected in ((1, 1), (2, 2), (7, 2), (0, 0)):
        found = decoded({**tensors, "count": np.array([count], np.int32)}, 0.3, decoder="detections")
        assert len(found) == expected


def test_suppression_may_be_asked_for_or_left_out() -> None:
    """A head's family decides, unless the parameter `nms` does."""
    rows = {"output": (84, 6)}
    assert not Head.of(config(rows, decoder="rtdetr")).overlaps
    assert Head.of(config(rows, decoder="rtdetr", nms="true")).overlaps
    assert not Head.of(config({"output": (6, 84)}, decoder="yolov8", nms="false")).overlaps
