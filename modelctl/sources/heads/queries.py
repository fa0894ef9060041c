"""Heads of transformers: one object or nothing for each query."""

from __future__ import annotations

from modelctl.sources.heads import values
from modelctl.sources.heads.arrangement import PAIRS
from modelctl.sources.heads.dense import boxes_and_scores
from modelctl.sources.heads.seen import Fit, MisfitError, Seen
from modelctl.sources.heads.values import Array

MAX_QUERIES = 1500
NO_OBJECT_SHARE = 0.5
"""Share of queries in which a last class "no object" wins: nearly all of a real DETR's 100 find nothing."""
RF_DETR = {"dets", "labels"}
"""The outputs of RF-DETR's export."""


def detr(seen: Seen) -> Fit:
    """Boxes of queries in 0..1 with logits: softmax with a last class "no object", or sigmoid."""
    boxes_name, logits_name = boxes_and_scores(seen)
    boxes, logits = seen.rows(boxes_name), seen.rows(logits_name)
    queries = len(boxes) // len(seen.outputs[boxes_name])
    seen.require(queries <= MAX_QUERIES, f"it has at most {MAX_QUERIES} queries, not {queries}")
    seen.require(not seen.is_grid(queries, (1,)), f"its {queries} rows are one for each cell, and overlap still")
    seen.require(values.unit_of(boxes) != "pixels", "its boxes lie in 0 to 1")
    if set(seen.outputs) not in map(set, PAIRS):
        seen.require_centres(boxes)
    activation = seen.option("activation") or _activation(seen, logits)
    columns = logits.shape[1]
    classes = columns - (activation == "softmax")
    last = " + no object" if activation == "softmax" else ""
    line = f"DETR, {activation}: {queries} queries of {classes} classes{last}"
    settings = {**({} if activation == "softmax" else {"activation": activation}), **seen.unit(boxes, "normalized")}
    return Fit("detr", {"logits": logits_name, "boxes": boxes_name}, line, classes, settings)


def _activation(seen: Seen, logits: Array) -> str:
    """Return what turns a DETR's logits into probabilities.

    A softmax has one class more than there are labels, the last, and it wins in most queries. In a sigmoid's rows any
    class may win everywhere; of one class, or of as many as there are labels, none is "no object".
    """
    columns = logits.shape[1]
    dominated = float((logits.argmax(axis=1) == columns - 1).mean()) >= NO_OBJECT_SHARE
    if values.are_probabilities(logits):
        seen.require(
            not (dominated and values.sum_to_one(logits)),
            'its scores went through a softmax whose last class is "no object": export the logits',
        )
        return "none"
    if set(seen.outputs) == RF_DETR or columns in (1, len(seen.labels)):
        return "sigmoid"
    return "softmax" if dominated else "sigmoid"


def rtdetr(seen: Seen) -> Fit:
    """Rows of cx, cy, w, h in 0..1 and classes; also YOLOv8's columns as rows, which still need NMS."""
    name = seen.one(2)
    high, wide = seen.shape(name)
    classes = wide - 4
    if classes < 1:
        raise MisfitError(f"its last axis of {wide} leaves no room for classes")
    rows = seen.rows(name)
    boxes = rows[:, :4]
    seen.require_scores(rows[:, 4:])
    seen.require_centres(boxes)
    seen.require(
        len(seen.labels) == classes or "RTDETR" in seen.head,
        f"{wide} = 4 + {classes}, and there are {len(seen.labels)} labels",
    )
    seen.require(not seen.is_grid(high, (3,)), f"its {high} rows are three for each cell, as YOLOv5's")
    grid = high > MAX_QUERIES or seen.is_grid(high, (1,))
    unit = seen.option("box_unit") or values.unit_of(boxes) or "normalized"
    settings = {**({"nms": True} if grid else {}), **({} if unit == "normalized" else {"box_unit": unit})}
    title = "rows of boxes and classes before NMS" if grid else "Ultralytics' RT-DETR"
    return Fit("rtdetr", {"head": name}, f"{title}: {wide} = 4 + {classes}", classes, settings)
