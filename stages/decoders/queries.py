"""The heads of transformers: a fixed number of queries, each an object or nothing; no NMS."""

from __future__ import annotations

import numpy as np

from stages.decoders.candidates import Candidates, Tensors, corners
from stages.decoders.layout import Layout
from stages.scores import activate, softmax


def detr(tensors: Tensors, layout: Layout, threshold: float) -> Candidates:
    """Decode logits and boxes. Source: `post_process_object_detection` of DETR and of RT-DETR in transformers."""
    logits, boxes = tensors["logits"], tensors["boxes"]
    if layout.activation == "softmax":
        classes = softmax(logits)[:, :-1]
        queries = np.arange(len(classes))
        class_ids = classes.argmax(axis=1)
        scores = classes[queries, class_ids]
    else:
        flat = activate(logits, layout.activation).ravel()
        best = np.argsort(-flat, kind="stable")[: len(logits)]
        queries, class_ids = np.divmod(best, logits.shape[1])
        scores = flat[best]
    kept = scores >= threshold
    return Candidates(corners(boxes[queries[kept]]), scores[kept], class_ids[kept].astype(np.int32))


def rtdetr(tensors: Tensors, layout: Layout, threshold: float) -> Candidates:
    """Decode rows cx, cy, w, h, classes; a query has its best class only. Source: `RTDETRPredictor` of Ultralytics."""
    (rows,) = tensors.values()
    scores = activate(rows[:, 4:].max(axis=1), layout.activation)
    chosen = np.flatnonzero(scores >= threshold)
    class_ids = rows[chosen, 4:].argmax(axis=1).astype(np.int32)
    return Candidates(corners(rows[chosen, :4]), scores[chosen], class_ids)
