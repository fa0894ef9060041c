"""The heads of YOLO: rows with objectness (v5, v6, v7, YOLOX), and columns without it (v8 to v12)."""

from __future__ import annotations

import numpy as np

from stages.decoders.candidates import Candidates, Tensors, corners, grid
from stages.decoders.layout import Layout
from stages.scores import Array, activate
from stages.serving import RefusalError


def with_objectness(tensors: Tensors, layout: Layout, threshold: float) -> Candidates:
    """Decode cx, cy, w, h, objectness, classes. A class score is at most 1, so objectness can filter first."""
    (rows,) = tensors.values()
    objectness = activate(rows[:, 4], layout.activation)
    chosen = np.flatnonzero(objectness >= threshold)
    classes = activate(rows[chosen, 5:], layout.activation)
    class_ids = classes.argmax(axis=1)
    scores = objectness[chosen] * classes[np.arange(len(chosen)), class_ids]
    kept = scores >= threshold
    boxes = _from_grid(rows, chosen[kept], layout) if layout.encoded else rows[chosen[kept], :4]
    return Candidates(corners(boxes), scores[kept], class_ids[kept].astype(np.int32))


def _from_grid(rows: Array, chosen: Array, layout: Layout) -> Array:
    """Convert the chosen boxes from grid cells to pixels, cx, cy, w, h: (offset + cell) x stride, exp(size) x stride.

    Source: YOLOX, `demo_postprocess` of its ONNX demo.
    """
    cells = grid(layout.width, layout.height, layout.strides)
    if len(cells) != len(rows):
        raise RefusalError("backend_error", "the network's output does not fit its strides")
    cells = cells[chosen]
    centres = (rows[chosen, :2] + cells[:, :2]) * cells[:, 2:]
    return np.concatenate([centres, np.exp(rows[chosen, 2:4]) * cells[:, 2:]], axis=1)


def yolov8(tensors: Tensors, layout: Layout, threshold: float) -> Candidates:
    """Decode columns cx, cy, w, h, classes."""
    (columns,) = tensors.values()
    scores = activate(columns[4:].max(axis=0), layout.activation)  # both activations keep the order
    chosen = np.flatnonzero(scores >= threshold)
    class_ids = columns[4:, chosen].argmax(axis=0).astype(np.int32)
    return Candidates(corners(columns[:4, chosen].T), scores[chosen], class_ids)
