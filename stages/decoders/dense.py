"""Boxes and class scores in two tensors, one row for each anchor, before NMS."""

from __future__ import annotations

import numpy as np

from stages.decoders.candidates import Candidates, Tensors, from_format
from stages.decoders.layout import Layout
from stages.scores import activate


def scored_boxes(tensors: Tensors, layout: Layout, threshold: float) -> Candidates:
    """Decode `boxes` [A, 4] and `scores` [A, C]; with `layout.background` the first score is that of no object.

    UltraFace (corners in 0..1, background first), YOLO-NAS (corners in pixels), YOLOv4 (corners in 0..1).
    """
    scores = activate(tensors["scores"].reshape(-1, tensors["scores"].shape[-1]), layout.activation)
    scores = scores[:, 1:] if layout.background else scores
    class_ids = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), class_ids]
    kept = np.flatnonzero(best >= threshold)
    boxes = from_format(tensors["boxes"].reshape(-1, 4)[kept], layout.box_format)
    return Candidates(boxes, best[kept], class_ids[kept].astype(np.int32))
