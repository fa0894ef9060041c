"""Heads behind which the network has done NMS itself: rows, or one tensor each for boxes, scores and classes."""

from __future__ import annotations

from typing import Final

import numpy as np

from stages.decoders.candidates import Candidates, Tensors, from_format
from stages.decoders.layout import Layout
from stages.scores import activate

COLUMNS: Final = {"batch": 1, "class": 1, "score": 1, "box": 4}
"""What a row may hold, and how many columns that takes."""


def end_to_end(tensors: Tensors, layout: Layout, threshold: float) -> Candidates:
    """Decode rows whose columns `layout.columns` names; a row with a negative class or batch index is padding.

    YOLOv10 and Ultralytics' exports with NMS: box, score, class. YOLOv7 with `--end2end`: batch, box, class, score.
    Graphs of NonMaxSuppression and Gather often: batch, class, score, box. OpenVINO's DetectionOutput: batch, class,
    score, box, which begins with batch -1 where the list ends.
    """
    (rows,) = tensors.values()
    rows = rows.reshape(-1, rows.shape[-1])
    at = positions(layout.columns)
    valid = rows[:, at["class"]] >= layout.first_class
    if "batch" in at:
        valid &= rows[:, at["batch"]] >= 0
    rows = rows[valid]
    scores = activate(rows[:, at["score"]], layout.activation)
    kept = scores >= threshold
    boxes = from_format(rows[kept, at["box"] : at["box"] + 4], layout.box_format)
    class_ids = np.rint(rows[kept, at["class"]]).astype(np.int32) - layout.first_class
    return Candidates(boxes, scores[kept], class_ids.astype(np.int32))


def positions(columns: tuple[str, ...]) -> dict[str, int]:
    """Return the first column of each part of a row."""
    found, place = {}, 0
    for name in columns:
        found[name] = place
        place += COLUMNS[name]
    return found


def detections(tensors: Tensors, layout: Layout, threshold: float) -> Candidates:
    """Decode `boxes` [K, 4], `scores` [K] or [K, 1], `classes` like them, and their `count` [1] where it is given.

    TensorRT's EfficientNMS (num_dets, det_boxes, det_scores, det_classes), TensorFlow Lite's Detection_PostProcess
    (boxes as yxyx in 0..1), the deployment exports of RT-DETR and D-FINE (no count), torchvision (classes from 1).
    """
    found, classes = tensors["scores"].ravel(), tensors["classes"].ravel()
    count = len(found)
    if "count" in tensors:
        count = int(np.clip(np.rint(tensors["count"].ravel()[0]), 0, count))
    raw = np.rint(classes[:count]).astype(np.int64)
    scores = activate(found[:count], layout.activation)
    kept = np.flatnonzero((scores >= threshold) & (raw >= layout.first_class))
    boxes = from_format(tensors["boxes"].reshape(-1, 4)[kept], layout.box_format)
    return Candidates(boxes, scores[kept], (raw[kept] - layout.first_class).astype(np.int32))
