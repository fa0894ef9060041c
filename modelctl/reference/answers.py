"""A network's outputs as an answer: labels with scores, best first, and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelctl.errors import CommandError
from modelctl.models.steps import DetectionPostprocess
from modelctl.reference.pictures import Placement

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Found:
    """One label, its class id, its score, and for a detector its box (xmin, ymin, xmax, ymax in pixels)."""

    label: str
    class_id: int
    score: float
    box: tuple[float, ...] = ()


def probabilities(values: Array, activation: str) -> Array:
    """Return logits [..., C] as probabilities, FP64."""
    values = values.astype(np.float64)
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
    return np.asarray(1 / (1 + np.exp(-values))) if activation == "sigmoid" else values.clip(0, 1)


def ranking(logits: Array, activation: str, labels: Sequence[str]) -> list[Found]:
    """Return all classes of logits [C], best first."""
    scores = probabilities(logits, activation)
    return [Found(labels[index], int(index), float(scores[index])) for index in np.argsort(-scores, kind="stable")]


def boxes(
    outputs: Mapping[str, Array], settings: DetectionPostprocess, place: Placement, labels: Sequence[str]
) -> list[Found]:
    """Return the boxes in one item's outputs, best first, in pixels of the upright picture."""
    rows = list(_candidates(outputs, settings, place))
    rows.sort(key=lambda row: -row[0])
    found: list[Found] = []
    kept: list[tuple[int, Array]] = []
    for score, class_id, corners in rows:
        if len(found) == settings.max_detections:
            break
        box = (corners - np.tile(place.offset, 2)) / np.tile(place.scale, 2)
        clipped = box.clip(0, np.tile(place.picture, 2))
        if (clipped[2:] <= clipped[:2]).any():
            continue
        overlapping = any(other == class_id and iou(box, kept_box) > settings.iou_threshold for other, kept_box in kept)
        if settings.decoder not in ("detr", "end_to_end") and overlapping:
            continue
        if class_id >= len(labels):
            raise CommandError(
                f"The network has found a class {class_id}, and there are {len(labels)} labels: give all."
            )
        kept.append((class_id, box))
        found.append(Found(labels[class_id], class_id, score, tuple(clipped.tolist())))
    return found


def uncut(outputs: Mapping[str, Array], settings: DetectionPostprocess, place: Placement) -> Array:
    """Return the corners of every candidate in one item's outputs, FP64 [N, 4] in the tensor's pixels."""
    return np.array([corners for *_, corners in _candidates(outputs, settings, place)], np.float64).reshape(-1, 4)


def iou(one: Array, other: Array) -> float:
    """Return the intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    areas = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return float(common / (areas - common))


def _candidates(outputs: Mapping[str, Array], settings: DetectionPostprocess, place: Placement) -> Any:
    """Yield score, class and corners in the tensor's pixels of every candidate above the threshold."""
    size = np.tile(place.tensor, 2)
    unit = settings.box_unit or ("normalized" if settings.decoder == "detr" else "pixels")
    factor = size if unit == "normalized" else np.ones(4)
    for score, class_id, box, centred in _rows(outputs, settings, place):
        if score >= settings.score_threshold:
            x, y, w, h = box = box * factor
            yield score, class_id, np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) if centred else box


def _rows(outputs: Mapping[str, Array], settings: DetectionPostprocess, place: Placement) -> Any:
    """Yield score, class, box of four numbers, and whether these are centre and size."""
    if settings.decoder == "detr":
        yield from _queries(outputs, settings)
        return
    head = outputs["head"].astype(np.float64)
    if settings.decoder == "end_to_end":
        yield from ((row[4], int(row[5]), row[:4], False) for row in head if row[5] >= 0)
        return
    rows = head.T if settings.decoder == "yolov8" else head
    activation = settings.activation or "none"
    if settings.encoded:
        rows = _unfold(rows, settings, place)
    for row in rows:
        classes = probabilities(row[4:] if settings.decoder == "yolov8" else row[5:], activation)
        best = int(classes.argmax())
        objectness = 1.0 if settings.decoder == "yolov8" else float(probabilities(row[4:5], activation)[0])
        yield float(classes[best]) * objectness, best, row[:4], True


def _queries(outputs: Mapping[str, Array], settings: DetectionPostprocess) -> Any:
    logits, places = outputs["logits"], outputs["boxes"].astype(np.float64)
    if (settings.activation or "softmax") == "softmax":
        scores = probabilities(logits, "softmax")[:, :-1]
        for query, row in enumerate(scores):
            yield float(row.max()), int(row.argmax()), places[query], True
        return
    scores = probabilities(logits, settings.activation or "sigmoid")
    for flat in np.argsort(-scores, axis=None, kind="stable")[: len(logits)]:
        query, class_id = divmod(int(flat), scores.shape[1])
        yield float(scores[query, class_id]), class_id, places[query], True


def _unfold(rows: Array, settings: DetectionPostprocess, place: Placement) -> Array:
    """Return YOLOX rows whose boxes are relative to their cell as rows in pixels."""
    done, index = rows.copy(), 0
    for stride in settings.strides or [8, 16, 32]:
        for y in range(place.tensor[1] // stride):
            for x in range(place.tensor[0] // stride):
                dx, dy, w, h = rows[index, :4]
                done[index, :4] = (dx + x) * stride, (dy + y) * stride, np.exp(w) * stride, np.exp(h) * stride
                index += 1
    return done
