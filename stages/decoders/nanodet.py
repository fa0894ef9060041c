"""The heads of NanoDet and NanoDet-Plus: class scores, then for each of four sides a distribution over distances."""

from __future__ import annotations

import numpy as np

from stages.decoders.candidates import Candidates, Tensors, grid
from stages.decoders.layout import Layout
from stages.scores import activate, softmax
from stages.serving import RefusalError


def nanodet(tensors: Tensors, layout: Layout, threshold: float) -> Candidates:
    """Decode NanoDet, whose points lie in the middle of their cells: (cell + 0.5) x stride."""
    return _decode(tensors, layout, threshold, 0.5)


def nanodet_plus(tensors: Tensors, layout: Layout, threshold: float) -> Candidates:
    """Decode NanoDet-Plus, whose points lie in the corner of their cells: cell x stride."""
    return _decode(tensors, layout, threshold, 0.0)


def _decode(tensors: Tensors, layout: Layout, threshold: float, offset: float) -> Candidates:
    """Decode rows of C scores and 4 x bins logits.

    A side's distance from its point is the expectation of the softmax over 0, 1, ... bins - 1, times the stride; the
    sides come left, top, right, bottom. Source: `get_bboxes` and `Integral` of NanoDet's heads; the C++ demos.
    """
    (rows,) = tensors.values()
    sides = 4 * layout.bins
    cells = grid(layout.width, layout.height, layout.strides, partial=True)
    if len(cells) != len(rows):
        raise RefusalError("backend_error", "the network's output does not fit its strides")
    classes = activate(rows[:, :-sides], layout.activation)
    class_ids = classes.argmax(axis=1)
    scores = classes[np.arange(len(rows)), class_ids]
    kept = np.flatnonzero(scores >= threshold)
    shares = softmax(rows[kept, -sides:].reshape(-1, 4, layout.bins))
    stride = cells[kept, 2:]
    distances = shares @ np.arange(layout.bins, dtype=np.float32) * stride
    points = (cells[kept, :2] + np.float32(offset)) * stride
    boxes = np.concatenate([points - distances[:, :2], points + distances[:, 2:]], axis=1)
    limits = np.tile(np.array([layout.width, layout.height], np.float32), 2)
    boxes = boxes.clip(0, limits)  # the source clips before NMS, which changes overlaps
    return Candidates(boxes.astype(np.float32), scores[kept], class_ids[kept].astype(np.int32))
