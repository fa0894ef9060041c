"""A network's outputs as an answer: labels with scores, best first, and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modelctl.errors import CommandError
from modelctl.models.heads import HEADS, suppresses
from modelctl.models.steps import DetectionPostprocess
from modelctl.reference.heads import candidates, probabilities
from modelctl.reference.pictures import Placement

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Found:
    """One label, its class id, its score, and for a detector its box (xmin, ymin, xmax, ymax in pixels)."""

    label: str
    class_id: int
    score: float
    box: tuple[float, ...] = ()


def ranking(logits: Array, activation: str, labels: Sequence[str]) -> list[Found]:
    """Return all classes of logits [C], best first."""
    scores = probabilities(logits, activation)
    return [Found(labels[index], int(index), float(scores[index])) for index in np.argsort(-scores, kind="stable")]


def boxes(
    outputs: Mapping[str, Array], settings: DetectionPostprocess, place: Placement, labels: Sequence[str]
) -> list[Found]:
    """Return the boxes in one item's outputs, best first, in pixels of the upright picture."""
    rows = list(_candidates(outputs, settings, place, labels))
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
        overlapping = any(
            (settings.agnostic_nms or other == class_id) and iou(box, kept_box) > settings.iou_threshold
            for other, kept_box in kept
        )
        if overlapping and suppresses(settings.decoder, settings.nms):
            continue
        if class_id >= len(labels):
            raise CommandError(
                f"The network has found a class {class_id}, and there are {len(labels)} labels: give all, "
                "or --first-class where ids do not begin with 0."
            )
        kept.append((class_id, box))
        found.append(Found(labels[class_id], class_id, score, tuple(clipped.tolist())))
    return found


def uncut(outputs: Mapping[str, Array], settings: DetectionPostprocess, place: Placement) -> Array:
    """Return the corners of every candidate in one item's outputs, FP64 [N, 4] in the tensor's pixels."""
    settings = settings.model_copy(update={"class_thresholds": {}})  # which name labels
    return np.array([corners for *_, corners in _candidates(outputs, settings, place, ())], np.float64).reshape(-1, 4)


def iou(one: Array, other: Array) -> float:
    """Return the intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    areas = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1])
    return float(common / (areas - common))


def _candidates(
    outputs: Mapping[str, Array], settings: DetectionPostprocess, place: Placement, labels: Sequence[str]
) -> Any:
    """Yield score, class and corners in the tensor's pixels of every candidate above its class's threshold."""
    lowest = dict.fromkeys(range(len(labels)), settings.score_threshold)
    for name, limit in settings.class_thresholds.items():
        named = [index for index, label in enumerate(labels) if label == name]
        lowest |= dict.fromkeys(named or [int(name)], limit)  # a number that is no label is a class id
    unit = settings.box_unit or HEADS[settings.decoder].unit
    factor = np.tile(place.tensor, 2) if unit == "normalized" else np.ones(4)
    for score, class_id, box in candidates(outputs, settings, place.tensor):
        if score >= lowest.get(class_id, settings.score_threshold):
            yield score, class_id, box * factor
