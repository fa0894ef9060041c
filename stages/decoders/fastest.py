"""The heads of FastestDet (a map of cells) and Yolo-FastestV2 (rows of cells with three anchors)."""

from __future__ import annotations

import numpy as np

from stages.decoders.candidates import Candidates, Tensors, corners, grid
from stages.decoders.layout import Layout
from stages.scores import activate
from stages.serving import RefusalError

ANCHORS_PER_CELL = 3


def fastestdet(tensors: Tensors, layout: Layout, threshold: float) -> Candidates:
    """Decode a map [5 + C, rows, columns]: objectness, x, y, w, h, class probabilities.

    Score = objectness^0.6 x best class^0.4; centre = (cell + tanh(x)) / cells, size = sigmoid(w), as shares of the
    input. Source: FastestDet, `handle_preds`.
    """
    (found,) = tensors.values()
    _, rows, columns = found.shape
    flat = found.reshape(len(found), -1)
    classes = activate(flat[5:], "none")
    class_ids = classes.argmax(axis=0)
    objectness = activate(flat[0], "none")
    scores = np.power(objectness, 0.6) * np.power(classes[class_ids, np.arange(flat.shape[1])], 0.4)
    kept = np.flatnonzero(scores >= threshold)
    cells = np.stack([kept % columns, kept // columns], axis=1)
    size = np.array([layout.width, layout.height], np.float32)
    centres = (cells + np.tanh(flat[1:3, kept].T)) / np.array([columns, rows], np.float32) * size
    sizes = 1 / (1 + np.exp(-flat[3:5, kept].T)) * size
    boxes = corners(np.concatenate([centres, sizes], axis=1))
    return Candidates(boxes, scores[kept].astype(np.float32), class_ids[kept].astype(np.int32))


def yolofastestv2(tensors: Tensors, layout: Layout, threshold: float) -> Candidates:
    """Decode rows of cells: 3 x (x, y, w, h), 3 x objectness, class probabilities, all in 0..1.

    Centre = (2 x - 0.5 + cell) x stride, size = (2 w)^2 x anchor, score = objectness x class. Source: Yolo-FastestV2,
    `handel_preds`.
    """
    (rows,) = tensors.values()
    cells = grid(layout.width, layout.height, layout.strides)
    if len(cells) != len(rows):
        raise RefusalError("backend_error", "the network's output does not fit its strides")
    sides = 4 * ANCHORS_PER_CELL
    classes = activate(rows[:, sides + ANCHORS_PER_CELL :], "none")
    class_ids = classes.argmax(axis=1)
    best = classes[np.arange(len(rows)), class_ids]
    scores = activate(rows[:, sides : sides + ANCHORS_PER_CELL], "none") * best[:, None]
    cell, anchor = np.nonzero(scores >= threshold)
    sizes = np.array([len(grid(layout.width, layout.height, (stride,))) for stride in layout.strides])
    level = np.repeat(np.arange(len(sizes)), sizes)[cell]
    anchors = np.array(layout.anchors, np.float32).reshape(len(layout.strides), ANCHORS_PER_CELL, 2)[level, anchor]
    raw = rows[cell].astype(np.float32)[np.arange(len(cell))[:, None], 4 * anchor[:, None] + np.arange(4)]
    centres = (2 * raw[:, :2] - np.float32(0.5) + cells[cell, :2]) * cells[cell, 2:]
    boxes = corners(np.concatenate([centres, (2 * raw[:, 2:]) ** 2 * anchors], axis=1))
    return Candidates(boxes, scores[cell, anchor], class_ids[cell].astype(np.int32))
