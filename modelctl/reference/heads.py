"""The candidates in a detector's outputs, one number at a time, by each family's own definition.

Every function yields (score, class id, xmin, ymin, xmax, ymax) in the unit that the head has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelctl.models.steps import DetectionPostprocess

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
Row = tuple[float, int, Array]
WIDTHS = {"batch": 1, "class": 1, "score": 1, "box": 4}


def probabilities(values: Array, activation: str) -> Array:
    """Return logits [..., C] as probabilities, FP64."""
    values = values.astype(np.float64)
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
    return np.asarray(1 / (1 + np.exp(-values))) if activation == "sigmoid" else values.clip(0, 1)


def candidates(outputs: Outputs, settings: DetectionPostprocess, size: tuple[int, int]) -> Iterator[Row]:
    """Yield every candidate of one item; `size` is the tensor's width and height."""
    doubles = {role: array.astype(np.float64) for role, array in outputs.items()}
    return READERS[settings.decoder](doubles, settings, size)


def _centred(box: Sequence[float] | Array) -> Array:
    x, y, w, h = box
    return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])


def _ordered(box: Array, settings: DetectionPostprocess) -> Array:
    if settings.box_format == "centre":
        return _centred(box)
    if settings.box_format == "yxyx":
        top, left, bottom, right = box
        return np.array([left, top, right, bottom])
    return np.array(box)


def _objectness(outputs: Outputs, settings: DetectionPostprocess, size: tuple[int, int]) -> Iterator[Row]:
    """Rows of cx, cy, w, h, objectness, classes."""
    rows, activation = outputs["head"], settings.activation or "none"
    if settings.encoded:
        rows = _unfold(rows, settings, size)
    for row in rows:
        classes = probabilities(row[5:], activation)
        best = int(classes.argmax())
        yield float(classes[best]) * float(probabilities(row[4:5], activation)[0]), best, _centred(row[:4])


def _cells(size: tuple[int, int], strides: Sequence[int], *, up: bool = False) -> Iterator[tuple[int, int, int, int]]:
    """Yield level, column, row and stride of every cell."""
    whole = math.ceil if up else math.floor
    for level, stride in enumerate(strides):
        for row in range(whole(size[1] / stride)):
            for column in range(whole(size[0] / stride)):
                yield level, column, row, stride


def _unfold(rows: Array, settings: DetectionPostprocess, size: tuple[int, int]) -> Array:
    """Return YOLOX rows whose boxes are relative to their cell as rows in pixels."""
    done = rows.copy()
    for index, (_, x, y, stride) in enumerate(_cells(size, settings.strides or [8, 16, 32])):
        dx, dy, w, h = rows[index, :4]
        done[index, :4] = (dx + x) * stride, (dy + y) * stride, np.exp(w) * stride, np.exp(h) * stride
    return done


def _classes_only(outputs: Outputs, settings: DetectionPostprocess, _size: tuple[int, int]) -> Iterator[Row]:
    """Rows of cx, cy, w, h, classes; YOLOv8 writes them as columns."""
    head = outputs["head"]
    for row in head.T if settings.decoder == "yolov8" else head:
        classes = probabilities(row[4:], settings.activation or "none")
        best = int(classes.argmax())
        yield float(classes[best]), best, _centred(row[:4])


def _queries(outputs: Outputs, settings: DetectionPostprocess, _size: tuple[int, int]) -> Iterator[Row]:
    logits, places = outputs["logits"], outputs["boxes"]
    if (settings.activation or "softmax") == "softmax":
        scores = probabilities(logits, "softmax")[:, :-1]
        for query, row in enumerate(scores):
            yield float(row.max()), int(row.argmax()), _centred(places[query])
        return
    scores = probabilities(logits, settings.activation or "sigmoid")
    for flat in np.argsort(-scores, axis=None, kind="stable")[: len(logits)]:
        query, class_id = divmod(int(flat), scores.shape[1])
        yield float(scores[query, class_id]), class_id, _centred(places[query])


def _rows(outputs: Outputs, settings: DetectionPostprocess, _size: tuple[int, int]) -> Iterator[Row]:
    """Rows after NMS; a negative class or batch index marks padding."""
    columns = settings.columns or ["box", "score", "class"]
    starts = np.cumsum([0, *(WIDTHS[name] for name in columns)])
    first = settings.first_class or 0
    for row in outputs["head"].reshape(-1, starts[-1]):
        part = {name: row[start : start + WIDTHS[name]] for name, start in zip(columns, starts, strict=False)}
        class_id = round(part["class"][0]) - first
        if class_id < 0 or part.get("batch", [0])[0] < 0:
            continue
        score = float(probabilities(part["score"], settings.activation or "none")[0])
        yield score, class_id, _ordered(part["box"], settings)


def _lists(outputs: Outputs, settings: DetectionPostprocess, _size: tuple[int, int]) -> Iterator[Row]:
    """One tensor each for boxes, scores and classes, of which `count` are real."""
    scores, classes = outputs["scores"].ravel(), outputs["classes"].ravel()
    number = len(scores)
    if "count" in outputs:
        number = min(number, max(0, round(float(outputs["count"].flat[0]))))
    for index in range(number):
        class_id = round(float(classes[index])) - (settings.first_class or 0)
        if class_id >= 0:
            score = float(probabilities(scores[index : index + 1], settings.activation or "none")[0])
            yield score, class_id, _ordered(outputs["boxes"].reshape(-1, 4)[index], settings)


def _scored(outputs: Outputs, settings: DetectionPostprocess, _size: tuple[int, int]) -> Iterator[Row]:
    """One tensor of boxes, one of scores, before NMS."""
    skipped = 1 if settings.background else 0
    count = outputs["scores"].shape[-1]
    for box, row in zip(outputs["boxes"].reshape(-1, 4), outputs["scores"].reshape(-1, count), strict=True):
        classes = probabilities(row, settings.activation or "none")[skipped:]
        best = int(classes.argmax())
        yield float(classes[best]), best, _ordered(box, settings)


def _nanodet(outputs: Outputs, settings: DetectionPostprocess, size: tuple[int, int]) -> Iterator[Row]:
    """A side's distance from its point is the mean of a distribution, in strides; the source clips boxes."""
    bins, plus = settings.bins or 8, settings.decoder == "nanodet_plus"
    head = outputs["head"]
    strides = settings.strides or ([8, 16, 32, 64] if plus else [8, 16, 32])
    for row, (_, x, y, stride) in zip(head, _cells(size, strides, up=True), strict=True):
        classes = probabilities(row[: len(row) - 4 * bins], settings.activation or "none")
        best = int(classes.argmax())
        sides = []
        for side in range(4):
            begin = len(row) - (4 - side) * bins
            share = probabilities(row[begin : begin + bins], "softmax")
            sides.append(stride * sum(number * share[number] for number in range(bins)))
        px, py = (x * stride, y * stride) if plus else ((x + 0.5) * stride, (y + 0.5) * stride)
        box = np.array([px - sides[0], py - sides[1], px + sides[2], py + sides[3]])
        yield float(classes[best]), best, box.clip(0, [*size, *size])


def _fastestdet(outputs: Outputs, _settings: DetectionPostprocess, size: tuple[int, int]) -> Iterator[Row]:
    """Cells of objectness, tanh offsets, sigmoid sizes and class probabilities."""
    head = outputs["head"]
    rows, columns = head.shape[1:]
    for y in range(rows):
        for x in range(columns):
            cell = head[:, y, x]
            best = int(cell[5:].argmax())
            score = max(cell[0], 0.0) ** 0.6 * max(cell[5 + best], 0.0) ** 0.4
            cx, cy = (x + math.tanh(cell[1])) / columns, (y + math.tanh(cell[2])) / rows
            w, h = 1 / (1 + math.exp(-cell[3])), 1 / (1 + math.exp(-cell[4]))
            yield float(score), best, _centred([cx * size[0], cy * size[1], w * size[0], h * size[1]])


def _yolofastestv2(outputs: Outputs, settings: DetectionPostprocess, size: tuple[int, int]) -> Iterator[Row]:
    """Cells of three anchors: sides, objectness, and the classes that they share."""
    strides, anchors = settings.strides or [16, 32], settings.anchors or []
    for row, (level, x, y, stride) in zip(outputs["head"], _cells(size, strides), strict=True):
        best = int(row[15:].argmax())
        for anchor in range(3):
            a, b, c, d = row[4 * anchor : 4 * anchor + 4]
            wide, high = anchors[6 * level + 2 * anchor : 6 * level + 2 * anchor + 2]
            box = [(a * 2 - 0.5 + x) * stride, (b * 2 - 0.5 + y) * stride, (c * 2) ** 2 * wide, (d * 2) ** 2 * high]
            yield float(row[12 + anchor] * row[15 + best]), best, _centred(box)


Reader = Callable[[Outputs, DetectionPostprocess, tuple[int, int]], Iterator[Row]]
READERS: Mapping[str, Reader] = {
    "yolov5": _objectness,
    "yolov8": _classes_only,
    "yolox": _objectness,
    "detr": _queries,
    "rtdetr": _classes_only,
    "end_to_end": _rows,
    "detections": _lists,
    "scored_boxes": _scored,
    "nanodet": _nanodet,
    "nanodet_plus": _nanodet,
    "fastestdet": _fastestdet,
    "yolofastestv2": _yolofastestv2,
}
