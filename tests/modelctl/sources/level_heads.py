"""Heads of several outputs that all say the same: two faces, or two classes, written as each family writes them.

Every function turns objects into a family's numbers by the inverse of its source's formula. The sources are those that
`modelctl.sources.heads.levels` names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from heads import OBJECTS, QUIET, SIDE, centre, listed, rows

Outputs = dict[str, Any]
FACES = [(0, score, box) for _, score, box in OBJECTS]
STRIDES = (8, 16, 32)


def empty(*shape: int, value: float = 0) -> Any:
    """Return an array of one value."""
    return np.full(shape, value, np.float32)


def place(box: Sequence[float], stride: int, *, middle: bool = False) -> tuple[int, int, int]:
    """Return column, row and number of the cell in which an object's centre lies."""
    cx, cy, _, _ = centre(box)
    column, row = int(cx // stride), int(cy // stride)
    return column, row, row * (SIDE // stride) + column


def yunet() -> Outputs:
    """Return twelve outputs: class, objectness, box and points of three levels."""
    made = {}
    for stride in STRIDES:
        cells = (SIDE // stride) ** 2
        made |= {f"cls_{stride}": empty(cells, 1, value=QUIET), f"obj_{stride}": empty(cells, 1, value=QUIET)}
        made |= {f"bbox_{stride}": empty(cells, 4), f"kps_{stride}": empty(cells, 10)}
    for stride, (_, score, box) in zip((8, 16), FACES, strict=True):
        column, row, cell = place(box, stride)
        cx, cy, width, height = centre(box)
        made[f"cls_{stride}"][cell] = score
        made[f"obj_{stride}"][cell] = score  # the geometric mean of both counts
        made[f"bbox_{stride}"][cell] = [
            cx / stride - column,
            cy / stride - row,
            np.log(width / stride),
            np.log(height / stride),
        ]
    names = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES]
    return {name: made[name] for name in names}


def priors(strides: Sequence[int], sides: Sequence[Sequence[int]]) -> list[tuple[float, float, float]]:
    """Return squares as centre and side, in pixels."""
    made = []
    for stride, level in zip(strides, sides, strict=True):
        for row in range(-(-SIDE // stride)):
            for column in range(-(-SIDE // stride)):
                made += [((column + 0.5) * stride, (row + 0.5) * stride, float(side)) for side in level]
    return made


def offsets(box: Sequence[float], prior: tuple[float, float, float]) -> list[float]:
    """Return a box as offsets from a prior, with the variances 0.1 and 0.2."""
    (cx, cy, width, height), (px, py, side) = centre(box), prior
    return [(cx - px) / (0.1 * side), (cy - py) / (0.1 * side), np.log(width / side) / 0.2, np.log(height / side) / 0.2]


def yunet_of_priors() -> Outputs:
    """Return three outputs: offsets and points, two classes, an overlap."""
    places = priors((8, 16, 32, 64), ((10, 16, 24), (32, 48), (64, 96), (128, 192, 256)))
    loc, conf, iou = empty(len(places), 14), empty(len(places), 2, value=QUIET), empty(len(places), 1, value=QUIET)
    for number, (_, score, box) in zip((40, 200), FACES, strict=True):
        loc[number, :4] = offsets(box, places[number])
        conf[number] = [1 - score, score]
        iou[number] = score
    return {"loc": loc, "conf": conf, "iou": iou}


def retinaface() -> Outputs:
    """Return three outputs: offsets, two classes, points."""
    places = priors(STRIDES, ((16, 32), (64, 128), (256, 512)))
    loc, conf = empty(len(places), 4), empty(len(places), 2, value=1 - QUIET)
    conf[:, 1] = QUIET
    for number, (_, score, box) in zip((40, 150), FACES, strict=True):
        loc[number] = offsets(box, places[number])
        conf[number] = [1 - score, score]
    return {"bbox": loc, "confidence": conf, "landmark": empty(len(places), 10)}


def scrfd() -> Outputs:
    """Return nine outputs: scores, sides and points of two boxes a cell."""
    counts = {stride: 2 * (SIDE // stride) ** 2 for stride in STRIDES}
    scores = {stride: empty(count, 1, value=QUIET) for stride, count in counts.items()}
    sides = {stride: empty(count, 4, value=0.1) for stride, count in counts.items()}
    for stride, (_, score, box) in zip((8, 16), FACES, strict=True):
        column, row, cell = place(box, stride)
        x, y = column * stride, row * stride
        scores[stride][2 * cell + 1] = score
        sides[stride][2 * cell + 1] = np.array([x - box[0], y - box[1], box[2] - x, box[3] - y]) / stride
    points = {stride: empty(count, 10) for stride, count in counts.items()}
    parts = [part[stride] for part in (scores, sides, points) for stride in STRIDES]
    return {str(440 + number): part for number, part in enumerate(parts)}


def centerface() -> Outputs:
    """Return four maps of a quarter of the size: heat, logarithms of height and width, offsets, points."""
    side = SIDE // 4
    heat, scale = empty(1, side, side, value=QUIET), empty(2, side, side)
    offset, points = empty(2, side, side), empty(10, side, side)
    for _, score, box in FACES:
        cx, cy, width, height = centre(box)
        column, row, _ = place(box, 4)
        heat[0, row, column] = score
        scale[:, row, column] = np.log([height / 4, width / 4])
        offset[:, row, column] = [cy / 4 - row - 0.5, cx / 4 - column - 0.5]
    return {"537": heat, "538": scale, "539": offset, "540": points}


def by_level(strides: Sequence[int] = (8, 16, 32, 64), classes: int = 2) -> Outputs:
    """Return PicoDet's eight outputs, or NanoDet's six: class scores of all levels, then their distributions."""
    scores, bins = {}, {}
    for stride in strides:
        cells = (-(-SIDE // stride)) ** 2
        scores[stride] = empty(cells, classes, value=QUIET)
        bins[stride] = empty(cells, 4, 8, value=-30)
        bins[stride][:, :, 0] = 0
    for stride, (kind, score, box) in zip((8, 16), OBJECTS, strict=True):
        column, row, cell = place(box, stride)
        x, y = (column + 0.5) * stride, (row + 0.5) * stride
        scores[stride][cell, kind] = score
        for side, distance in enumerate([x - box[0], y - box[1], box[2] - x, box[3] - y]):
            low, share = divmod(distance / stride, 1)
            bins[stride][cell, side] = -30
            bins[stride][cell, side, int(low)] = np.log(1 - share + 1e-9)
            bins[stride][cell, side, int(low) + 1] = np.log(share + 1e-9)
    made = {f"transpose_{2 * number}": scores[stride] for number, stride in enumerate(strides)}
    return made | {f"transpose_{2 * number + 1}": bins[stride].reshape(-1, 32) for number, stride in enumerate(strides)}


def columns_of_scores() -> Outputs:
    """Return PaddleDetection's corners [cells, 4], and scores [classes, cells]."""
    made = rows(84, objectness=False)
    places, halves = made[:, :2], made[:, 2:4] / 2
    return {"concat_0": np.concatenate([places - halves, places + halves], axis=1), "concat_1": made[:, 4:].T}


def mmdetection() -> Outputs:
    """Return rows of corners and score, and class ids; three rows are padding."""
    places, scores, kinds = listed()
    kinds[len(OBJECTS) :] = -1
    return {"dets": np.concatenate([places, scores[:, None]], axis=1), "labels": kinds}
