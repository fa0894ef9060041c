"""Heads that all say the same: two objects in an input of 64 x 64, written as each family writes them.

Every function turns `OBJECTS` into a family's numbers by the inverse of its source's formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networks
import numpy as np
from networks import node, value
from onnx import TensorProto, helper

SIDE = 64
OBJECTS = [(1, 0.9, (8.0, 16.0, 40.0, 56.0)), (0, 0.8, (36.0, 4.0, 60.0, 28.0))]
"""Class, score, corners."""
TWIN = (1, 0.6, (9.0, 17.0, 41.0, 57.0))
"""Overlaps the first object, so that NMS drops it."""
QUIET = 0.01
"""The score of everything else."""
KINDS = {"f": TensorProto.FLOAT, "i": TensorProto.INT64}


def constant(
    path: Path,
    outputs: dict[str, Any],
    *,
    batch: int | str = "batch",
    sizes: Sequence[str] = (),
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a network that answers every picture [batch, 3, 64, 64] with `outputs`, each without the batch.

    Args:
        path: of the file.
        outputs: by name; a number is an output of shape [batch].
        batch: the declared batch; 0 for outputs that have no batch axis.
        sizes: names of further inputs INT64 [batch, 2] by which the first output, boxes in 0..1, is multiplied.
        metadata: of the file.

    """
    whole, constants = batch == 0, {"nothing": np.float32(0), "sides": np.array([1, 2, 3], np.int64)}
    nodes = [node("ReduceSum", ["images", "sides"], ["sums"], keepdims=0), node("Mul", ["sums", "nothing"], ["zero"])]
    made = []
    for name, array in outputs.items():
        values = np.asarray(array)
        kind = KINDS[values.dtype.kind]
        constants |= {
            f"{name}/c": values.astype(np.float32),
            f"{name}/to": np.array([-1] + [1] * values.ndim, np.int64),
        }
        nodes += [
            node("Reshape", ["zero", f"{name}/to"], [f"{name}/z"]),
            node("Add", [f"{name}/z", f"{name}/c"], [f"{name}/b"]),
        ]
        last = f"{name}/b"
        if name == next(iter(outputs)):
            for size in sizes:
                nodes += [
                    node("Cast", [size], [f"{size}/f"], to=TensorProto.FLOAT),
                    node("Concat", [f"{size}/f", f"{size}/f"], [f"{size}/4"], axis=1),
                    node("Unsqueeze", [f"{size}/4", "one"], [f"{size}/r"]),
                    node("Mul", [last, f"{size}/r"], [f"{size}/m"]),
                ]
                constants["one"], last = np.array([1], np.int64), f"{size}/m"
        if whole:
            constants["first"] = np.array(0, np.int64)
            nodes.append(node("Gather", [last, "first"], [f"{name}/w"], axis=0))
            last = f"{name}/w"
        nodes.append(node("Cast", [last], [name], to=kind))
        shape: list[int | str] = list(values.shape)
        made.append(value(name, kind, ["rows", *shape[1:]] if whole else [batch, *shape]))
    inputs = [value("images", TensorProto.FLOAT, [batch or 1, 3, SIDE, SIDE])]
    inputs += [value(size, TensorProto.INT64, [batch or 1, 2]) for size in sizes]
    return networks.save(path, nodes, inputs, made, constants, metadata)


def with_nms(path: Path) -> Path:
    """Add an operator of NMS that nobody reads, as exporters that suppress in the graph leave one."""
    import onnx

    model = onnx.load(path)
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.zeros((1, 1, 4), np.float32), "nms/boxes"),
            onnx.numpy_helper.from_array(np.zeros((1, 1, 1), np.float32), "nms/scores"),
        ]
    )
    model.graph.node.append(helper.make_node("NonMaxSuppression", ["nms/boxes", "nms/scores"], ["nms/kept"]))
    onnx.save(model, path)
    return path


def with_mask(path: Path, *sizes: int | str) -> Path:
    """Add an input `pixel_mask` [batch, H, W]; anything but ones moves every number of the outputs."""
    import onnx

    model = onnx.load(path)
    model.graph.input.append(value("pixel_mask", TensorProto.INT64, ["batch", *sizes]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1), "mask/one"))
    model.graph.node[1].output[0] = "mask/zero"
    made = [
        node("Cast", ["pixel_mask"], ["mask/real"], to=TensorProto.FLOAT),
        node("ReduceMean", ["mask/real"], ["mask/mean"], axes=[1, 2], keepdims=0),
        node("Sub", ["mask/mean", "mask/one"], ["mask/away"]),
        node("Add", ["mask/zero", "mask/away"], ["zero"]),
    ]
    for number, one in enumerate(made):
        model.graph.node.insert(2 + number, one)
    onnx.save(model, path)
    return path


def centre(box: Sequence[float]) -> list[float]:
    """Return corners as cx, cy, w, h."""
    x1, y1, x2, y2 = box
    return [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]


def filler(count: int) -> Any:
    """Return small boxes all over the picture, cx, cy, w, h."""
    places = np.linspace(4, SIDE - 4, count)
    return np.stack([places, places[::-1], np.full(count, 6.0), np.full(count, 6.0)], axis=1)


def rows(count: int, classes: int = 2, *, objectness: bool, twin: bool = True) -> Any:
    """Return rows of cx, cy, w, h in pixels, perhaps objectness, and classes."""
    made = np.full((count, 4 + objectness + classes), QUIET)
    made[:, :4] = filler(count)
    for index, (kind, score, box) in enumerate([*OBJECTS, *([TWIN] if twin else [])]):
        row = made[7 * index + 3]
        row[:4] = centre(box)
        row[4:] = 0.05
        row[4 + objectness + kind] = score
        if objectness:
            row[4] = 1
    return made.astype(np.float32)


def encoded(strides: Sequence[int] = (8, 16, 32)) -> Any:
    """Return YOLOX's rows before decoding: offsets from the cell, logarithms of the size."""
    cells = [(x, y, s) for s in strides for y in range(SIDE // s) for x in range(SIDE // s)]
    made = rows(len(cells), objectness=True)
    for row, (x, y, stride) in zip(made, cells, strict=True):
        row[:4] = [row[0] / stride - x, row[1] / stride - y, np.log(row[2] / stride), np.log(row[3] / stride)]
    return made


def distances(*, plus: bool) -> Any:
    """Return NanoDet's rows: two class scores, then 8 logits for each side's distance from the cell's point."""
    strides = (8, 16, 32, 64) if plus else (8, 16, 32)
    cells = [(x, y, s) for s in strides for y in range(-(-SIDE // s)) for x in range(-(-SIDE // s))]
    made = np.full((len(cells), 2 + 32), -30.0)
    made[:, :2] = QUIET
    made[:, 2::8] = 0
    shift = 0.0 if plus else 0.5
    for kind, score, (x1, y1, x2, y2) in OBJECTS:
        column, line = int((x1 + x2) / 16), int((y1 + y2) / 16)
        row = made[line * 8 + column]
        x, y = (column + shift) * 8, (line + shift) * 8
        row[:2] = 0.05
        row[kind] = score
        row[2:] = -30
        for side, distance in enumerate((x - x1, y - y1, x2 - x, y2 - y)):
            whole, part = divmod(distance / 8, 1)
            row[2 + 8 * side + int(whole)] = np.log(1 - part)
            if part:
                row[2 + 8 * side + int(whole) + 1] = np.log(part)
    return made.astype(np.float32)


def fastest_map() -> Any:
    """Return FastestDet's map of 4 x 4 cells; score = objectness^0.6 x class^0.4."""
    made = np.zeros((7, 4, 4))
    made[0], made[5], made[6] = QUIET, 0.5, 0.5
    for kind, score, box in OBJECTS:
        cx, cy, w, h = centre(box)
        x, y = int(cx / 16), int(cy / 16)
        cell = made[:, y, x]
        cell[0] = score
        cell[1:3] = np.arctanh([cx / 16 - x, cy / 16 - y])
        cell[3:5] = [np.log(side / SIDE / (1 - side / SIDE)) for side in (w, h)]
        cell[5:] = 1 - score
        cell[5 + kind] = score
    return made.astype(np.float32)


ANCHORS = [30.0, 30.0, 20.0, 20.0, 10.0, 10.0, 60.0, 60.0, 50.0, 50.0, 40.0, 40.0]


def fastest_rows() -> Any:
    """Return Yolo-FastestV2's rows of 16 + 4 cells, the objects at the first and second anchor of stride 16."""
    made = np.full((20, 17), QUIET)
    for anchor, (kind, score, box) in enumerate(OBJECTS):
        cx, cy, w, h = centre(box)
        x, y = int(cx / 16), int(cy / 16)
        row = made[4 * y + x]
        wide, high = ANCHORS[2 * anchor : 2 * anchor + 2]
        sides = [(cx / 16 - x + 0.5) / 2, (cy / 16 - y + 0.5) / 2, np.sqrt(w / wide) / 2, np.sqrt(h / high) / 2]
        row[4 * anchor : 4 * anchor + 4] = sides
        row[12 + anchor] = 1
        row[15 + kind] = score
    return made.astype(np.float32)


def listed(*, first: int = 0, yxyx: bool = False, unit: float = 1.0, pad: int = 3) -> tuple[Any, Any, Any]:
    """Return boxes, scores and class ids after NMS, and rows of padding behind them."""
    boxes = [[box[1], box[0], box[3], box[2]] if yxyx else list(box) for _, _, box in OBJECTS] + [[0.0] * 4] * pad
    scores = [score for _, score, _ in OBJECTS] + [0.0] * pad
    kinds = [kind + first for kind, _, _ in OBJECTS] + [0] * pad
    return np.array(boxes, np.float32) * np.float32(unit), np.array(scores, np.float32), np.array(kinds, np.int64)


def queries(count: int = 10) -> tuple[Any, Any]:
    """Return the boxes of queries in 0..1, cx, cy, w, h, and logits of two classes by sigmoid."""
    made = filler(count) / SIDE
    logits = np.full((count, 2), -6.0)
    for index, (kind, score, box) in enumerate(OBJECTS):
        made[3 * index + 1] = np.array(centre(box)) / SIDE
        logits[3 * index + 1, kind] = np.log(score / (1 - score))
    return made.astype(np.float32), logits.astype(np.float32)
