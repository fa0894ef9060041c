"""Heads of several outputs: their family is read from shapes and names, and decoded in the graph.

    outputs of one picture --family--> boxes and scores of all levels, which `dense.scored_boxes` reads

Each family's source names where its arithmetic comes from. A family whose boxes need numbers that are not in the file,
such as YOLO's anchors, is refused by name (`unread`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from modelctl.console import say
from modelctl.graphs import networks, trial
from modelctl.graphs.levels import Decoding, Values

STRIDES = (8, 16, 32)
FOUR_STRIDES = (8, 16, 32, 64)
VARIANCES = (0.1, 0.2)
RETINAFACE_SIDES = ((16, 32), (64, 128), (256, 512))
YUNET_SIDES = ((10, 16, 24), (32, 48), (64, 96), (128, 192, 256))
BINS = 8
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Head:
    """The outputs of a network for one picture.

    Attributes:
        shapes: by name, in the file's order, without a batch.
        size: width and height of the input.

    """

    shapes: Shapes
    size: tuple[int, int]

    def of_width(self, *widths: int) -> dict[int, list[str]]:
        """Return the names of outputs [cells, columns] by their columns, for some numbers of columns."""
        return {
            width: [name for name, shape in self.shapes.items() if len(shape) == 2 and shape[1] == width]
            for width in widths
        }

    def points(self, stride: int, offset: float = 0, *, partial: bool = True) -> Values:
        """Return the places of a level's cells in pixels [cells, 2], row by row; the edge cuts off `partial` cells."""
        columns, rows = ((side + (stride - 1) * partial) // stride for side in self.size)
        grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
        points: Values = ((grid + offset) * stride).astype(np.float32)
        return points


def join(path: Path, work: Path, size: Sequence[int] | None) -> tuple[Path, str]:
    """Return the file, or a copy of it whose head of several outputs is decoded, with its family's name; else "".

    Args:
        path: the network, with a picture as its only input.
        work: the folder for the copy.
        size: height and width of its pictures where the file leaves them free.

    """
    model = networks.load(path)
    inputs, outputs = networks.ports(model)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or len(outputs) < 2:
        return path, ""
    (port,) = inputs
    last = port.shape[1] not in (1, 3)
    sides = [
        own or asked for own, asked in zip(port.shape[1:3] if last else port.shape[2:], size or (0, 0), strict=True)
    ]
    if not all(sides):
        return path, ""  # `missing` asks for the size
    shape = (1, *sides, port.shape[3] or 3) if last else (1, port.shape[1] or 3, *sides)
    ran = trial.run(path, [{port.name: np.zeros(shape, networks.NUMPY[port.dtype])}])
    made = {name: array.shape for name, array in ran.made(0).items()}
    batched = max(map(len, made.values())) > 2 and all(shape[:1] == (1,) for shape in made.values())
    head = Head({name: shape[batched:] for name, shape in made.items()}, (sides[1], sides[0]))
    decoding = Decoding(model)
    for title, decode in FAMILIES.items():
        if decode(head, decoding):
            say(f"      {title}: its {len(outputs)} outputs become boxes and scores within the network")
            copy = work / "joined.onnx"
            networks.save(model, copy)
            return copy, title
    return path, ""


def yunet(head: Head, make: Decoding) -> bool:
    """Faces: class, objectness and box of each cell, by names. Source: OpenCV's FaceDetectorYN, `postProcess`."""
    names = {kind: [f"{kind}_{stride}" for stride in STRIDES] for kind in ("cls", "obj", "bbox")}
    wanted = {name for kind in names.values() for name in kind}
    if not wanted <= set(head.shapes):
        return False
    boxes, scores = [], []
    for stride, cls, obj, bbox in zip(STRIDES, *names.values(), strict=True):
        both = make.node("Mul", *(make.unit(make.rows(name, head.shapes[name])) for name in (cls, obj)))
        scores.append(make.node("Sqrt", both))
        boxes.append(_from_cell(make, make.rows(bbox, head.shapes[bbox]), head.points(stride), stride))
    make.finish(boxes, scores)
    return True


def _from_cell(make: Decoding, rows: str, points: Values, stride: int) -> str:
    """Decode rows of an offset in cells, and logarithms of a size in cells."""
    scale = make.constant(stride)
    centres = make.node("Add", make.node("Mul", make.columns(rows, 0, 1), scale), make.constant(points))
    return make.corners(centres, make.node("Mul", make.node("Exp", make.columns(rows, 2, 3)), scale))


def yunet_of_priors(head: Head, make: Decoding) -> bool:
    """Faces of the YuNet before 2023: offsets, two classes and an overlap for each prior. Source: libfacedetection."""
    priors = _priors(head, FOUR_STRIDES, YUNET_SIDES, partial=False)
    parts = _of_priors(head, priors, 14, 2, 1)
    if not parts:
        return False
    loc, conf, overlap = (make.rows(name, head.shapes[name]) for name in parts)
    score = make.node("Mul", make.columns(conf, 1), make.unit(overlap))
    make.finish([_from_priors(make, loc, priors)], [make.node("Sqrt", score)])
    return True


def retinaface(head: Head, make: Decoding) -> bool:
    """Faces: offsets, two classes and points for each prior. Source: Pytorch_Retinaface, `PriorBox` and `decode`."""
    priors = _priors(head, STRIDES, RETINAFACE_SIDES, partial=True)
    parts = _of_priors(head, priors, 4, 2, 10)
    if not parts:
        return False
    loc, conf, _ = (make.rows(name, head.shapes[name]) for name in parts)
    make.finish([_from_priors(make, loc, priors)], [make.columns(conf, 1)])
    return True


def _priors(head: Head, strides: Sequence[int], sides: Sequence[Sequence[int]], *, partial: bool) -> Values:
    """Return priors as centres and sizes in pixels [priors, 4]: squares of some sides in the middle of each cell."""
    levels = [
        product(head.points(stride, 0.5, partial=partial).tolist(), level)
        for stride, level in zip(strides, sides, strict=True)
    ]
    return np.array([(*point, side, side) for level in levels for point, side in level], np.float32)


def _of_priors(head: Head, priors: Values, *widths: int) -> list[str]:
    """Return the outputs that write so many columns for each prior, in the order of `widths`; empty if others do."""
    found = [name for width in widths for name in head.of_width(width)[width]]
    fits = len(found) == len(widths) == len(head.shapes)
    return found if fits and all(head.shapes[name][0] == len(priors) for name in found) else []


def _from_priors(make: Decoding, loc: str, priors: Values) -> str:
    """Decode offsets in tenths, and logarithms in fifths, of each prior's size."""
    where, size = make.constant(priors[:, :2]), make.constant(priors[:, 2:])
    moved = make.node("Mul", make.columns(loc, 0, 1), make.constant(priors[:, 2:] * VARIANCES[0]))
    grown = make.node("Exp", make.node("Mul", make.columns(loc, 2, 3), make.constant(VARIANCES[1])))
    return make.corners(make.node("Add", where, moved), make.node("Mul", grown, size))


def scrfd(head: Head, make: Decoding) -> bool:
    """Faces: scores and sides of two boxes a cell, on three levels. Source: insightface, `SCRFD.forward`."""
    found = head.of_width(1, 4, 10)
    rows = [2 * len(head.points(stride)) for stride in STRIDES]
    levels = [{head.shapes[name][0]: name for name in found[width]} for width in (1, 4)]
    if len(head.shapes) not in (6, 9) or any(sorted(level) != sorted(rows) for level in levels):
        return False
    boxes, scores = [], []
    for stride, count in zip(STRIDES, rows, strict=True):
        score, sides = (level[count] for level in levels)
        scores.append(make.rows(score, head.shapes[score]))
        points = np.repeat(head.points(stride), 2, axis=0)
        boxes.append(make.around(points, make.rows(sides, head.shapes[sides]), stride))
    make.finish(boxes, scores)
    return True


def centerface(head: Head, make: Decoding) -> bool:
    """Faces: maps of centres, logarithms of height and width, offsets and points. Source: CenterFace, `decode`."""
    maps = list(head.shapes.items())
    across = tuple(-(-side // 4) for side in reversed(head.size))
    if [shape for _, shape in maps] != [(depth, *across) for depth in (1, 2, 2, 10)]:
        return False
    heat, size, offset, _ = (make.rows(name, shape) for name, shape in maps)
    middle = make.node("Add", make.columns(offset, 1, 0), make.constant(0.5))
    rows = make.join(2, middle, make.columns(size, 1, 0))
    make.finish([_from_cell(make, rows, head.points(4), 4)], [heat])
    return True


def distributions(head: Head, make: Decoding) -> bool:
    """NanoDet and PicoDet by level: class scores, and four distributions around the middle of each cell.

    Source: NanoDet's `Integral`; PaddleDetection's `PicoDetPostProcess`.
    """
    sides = {shape[0]: name for name, shape in head.shapes.items() if shape[1:] == (4 * BINS,)}
    scores = {shape[0]: name for name, shape in head.shapes.items() if len(shape) == 2 and name not in sides.values()}
    strides = next((one for one in (FOUR_STRIDES, STRIDES) if len(head.shapes) == 2 * len(one)), ())
    rows = [len(head.points(stride)) for stride in strides]
    if not strides or sorted(sides) != sorted(rows) or sorted(scores) != sorted(rows):
        return False
    if len({head.shapes[name][1] for name in scores.values()}) != 1:
        return False
    boxes = []
    for stride, count in zip(strides, rows, strict=True):
        distances = make.expectation(make.rows(sides[count], head.shapes[sides[count]]), count, BINS)
        boxes.append(make.around(head.points(stride, 0.5), distances, stride))
    make.finish(boxes, [make.rows(scores[count], head.shapes[scores[count]]) for count in rows])
    return True


def mmdetection(head: Head, make: Decoding) -> bool:
    """Rows of corners and score after NMS, and class ids, -1 for padding. Source: MMDeploy's `dets` and `labels`."""
    dets = head.shapes.get("dets", ())
    if len(dets) != 2 or dets[1] != 5 or len(head.shapes.get("labels", ())) != 1 or make.axes("dets") != 3:
        return False
    rows = make.real("dets")
    score = make.node("Gather", rows, make.constant(4, np.int64), axis=2)
    made = {"det_boxes": (make.columns(rows, 0, 1, 2, 3), 3), "det_scores": (score, 2), "det_classes": ("labels", 2)}
    make.replace(made)  # the names of EfficientNMS, whose boxes and ids are written as these
    return True


def paddle(head: Head, make: Decoding) -> bool:
    """Boxes [A, 4], and scores [C, A] that become rows. Source: PaddleDetection's export without NMS."""
    boxes = [name for name, shape in head.shapes.items() if len(shape) == 2 and shape[1] == 4 and shape[0] > 4]
    if len(head.shapes) != 2 or len(boxes) != 1:
        return False
    (scores,) = head.shapes.keys() - set(boxes)
    shape = head.shapes[scores]
    count = head.shapes[boxes[0]][0]
    if len(shape) != 2 or shape[1] != count or shape[0] == count:
        return False
    turned = make.node("Transpose", make.rows(scores, shape), perm=[0, 2, 1])
    make.replace({"boxes": (make.rows(boxes[0], (count, 4)), 3), "scores": (turned, 3)})
    return True


FAMILIES: Mapping[str, Callable[[Head, Decoding], bool]] = {
    "YuNet": yunet,
    "YuNet with priors": yunet_of_priors,
    "RetinaFace": retinaface,
    "SCRFD": scrfd,
    "CenterFace": centerface,
    "NanoDet or PicoDet by level": distributions,
    "MMDetection": mmdetection,
    "PaddleDetection without NMS": paddle,
}
