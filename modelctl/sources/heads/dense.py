"""Heads before NMS: one box for each anchor or cell of a grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modelctl.graphs.levels import BOXES
from modelctl.sources.heads import values
from modelctl.sources.heads.seen import Fit, MisfitError, Seen

COCO_CLASSES = 80
YOLO_FASTEST_ANCHORS = [12.64, 19.39, 37.88, 51.48, 55.71, 138.31, 126.91, 78.23, 131.57, 214.55, 279.92, 258.87]
"""Of the published Yolo-FastestV2, trained on COCO at 352 x 352."""
DEFAULT_BINS = 8
MIN_BINS, MAX_BINS = 5, 32


def yolov8(seen: Seen) -> Fit:
    """Columns of cx, cy, w, h, classes."""
    name = seen.one(2)
    high, wide = seen.shape(name)
    classes = _room(high - 4, high, "first")
    seen.require(high < wide, f"it writes more columns than rows, not {high} x {wide}")
    rows = np.concatenate([array[0].T for array in seen.outputs[name]])
    boxes, scores = rows[:, :4], rows[:, 4:]
    seen.require_scores(scores)
    seen.require_centres(boxes)
    return Fit("yolov8", {"head": name}, f"YOLOv8: {high} = 4 + {classes}", classes, seen.unit(boxes, "pixels"))


def yolov5(seen: Seen) -> Fit:
    """Rows of cx, cy, w, h, objectness, classes, with three anchors a cell."""
    fit = _with_objectness(seen, "yolov5", (3,), "YOLOv5")
    return replace(fit, doubts=_untrained(seen.rows(fit.roles["head"])[:, 5:]))


def _untrained(classes: values.Array) -> list[str]:
    """Return a doubt where the probability of a single class was not trained, and lowers each score.

    YOLOv5 multiplies objectness by it and begins with 0.99998; YOLOv7 begins lower, and leaves it out in its NMS.
    """
    if classes.shape[1] > 1 or np.ptp(classes) > MAX_UNTRAINED_SPREAD or classes.mean() > MIN_CERTAIN:
        return []
    return [
        f"Its one class has a probability of {values.spread(classes)} in every row, by which scores are multiplied, as "
        "YOLOv5 does. YOLOv7 does not: if it is one, its scores are too low by this factor, so lower --score-threshold."
    ]


MAX_UNTRAINED_SPREAD, MIN_CERTAIN = 0.1, 0.95
"""A class that was trained is near 0 in some rows and near 1 in others; one of 0.95 lowers no score noticeably."""


def yolox(seen: Seen) -> Fit:
    """The same rows with one box a cell, decoded or not; YOLOv6 writes them too, decoded."""
    fit = _with_objectness(seen, "yolox", (1,), "YOLOX")
    boxes = seen.rows(fit.roles["head"])[:, :4]
    given = seen.option("encoded")
    encoded = _is_encoded(seen, boxes) if given is None else bool(given)
    strides = seen.option("strides")
    grid = values.grid_of(len(boxes) // len(seen.outputs[fit.roles["head"]]), seen.size, (1,))
    if encoded and strides is None and grid is not None and grid[1] != (8, 16, 32):
        strides = list(grid[1])
    if encoded:
        settings = {"encoded": True, **({"strides": strides} if strides else {})}
        return Fit(fit.decoder, fit.roles, f"{fit.line}, boxes relative to their cells", fit.classes, settings)
    seen.require_centres(boxes)
    return Fit(fit.decoder, fit.roles, fit.line, fit.classes, {**fit.settings, **seen.unit(boxes, "pixels")})


def _is_encoded(seen: Seen, boxes: values.Array) -> bool:
    """Tell whether boxes are relative to their cells: some sizes are logarithms below 0, no centre is far away."""
    if not boxes.size or np.abs(boxes[:, :2]).max() >= MAX_ENCODED_OFFSET:
        return False
    return values.share(boxes, "centre", values.size_in("normalized", seen.size, boxes)) < 1 or seen.forced


MAX_ENCODED_OFFSET = 32
"""Undecoded YOLOX centres lie within a few cells of their own cell; decoded ones reach hundreds of pixels."""


def _with_objectness(seen: Seen, decoder: str, per_cell: tuple[int, ...], title: str) -> Fit:
    name = seen.one(2)
    high, wide = seen.shape(name)
    classes = _room(wide - 5, wide, "last")
    rows = seen.rows(name)
    seen.require_scores(rows[:, 4:])
    if all(seen.size):
        seen.require(
            values.grid_of(high, seen.size, per_cell) is not None,
            f"an input of {seen.size[0]} x {seen.size[1]} has not {high} boxes with {per_cell[0]} a cell",
        )
    seen.require(
        not seen.labels or len(seen.labels) != classes + 1,
        f"{wide} = 5 + {classes}, and there are {len(seen.labels)} labels",
    )
    if decoder == "yolox":
        return Fit(decoder, {"head": name}, f"{title}: {wide} = 4 + 1 + {classes}", classes)
    seen.require_centres(rows[:, :4])
    return Fit(
        decoder, {"head": name}, f"{title}: {wide} = 4 + 1 + {classes}", classes, seen.unit(rows[:, :4], "pixels")
    )


def nanodet_plus(seen: Seen) -> Fit:
    """Rows of class scores and distributions, of four levels."""
    return _nanodet(seen, "nanodet_plus", (8, 16, 32, 64), "NanoDet-Plus")


def nanodet(seen: Seen) -> Fit:
    """The same of three levels, whose points lie in the middle of their cells."""
    return _nanodet(seen, "nanodet", (8, 16, 32), "NanoDet")


def _nanodet(seen: Seen, decoder: str, usual: tuple[int, ...], title: str) -> Fit:
    name = seen.one(2)
    high, wide = seen.shape(name)
    strides = tuple(seen.option("strides") or usual)
    expected = values.cells(seen.size, strides, up=True)
    if high != expected:
        raise MisfitError(f"strides {','.join(map(str, strides))} make {expected} rows, not {high}")
    bins = seen.option("bins") or _bins(wide, len(seen.labels))
    classes = _room(wide - 4 * bins, wide, "last")
    rows = seen.rows(name)
    seen.require_scores(rows[:, :classes])
    seen.require(not values.are_probabilities(rows[:, classes:]), "it writes logits behind the class scores")
    settings = {
        **({"strides": list(strides)} if strides != usual else {}),
        **({"bins": bins} if bins != DEFAULT_BINS else {}),
    }
    return Fit(decoder, {"head": name}, f"{title}: {wide} = {classes} + 4 x {bins} bins", classes, settings)


def _bins(wide: int, labels: int) -> int:
    """Return the bins that the labels leave room for, else the usual number."""
    bins, rest = divmod(wide - labels, 4)
    return bins if labels and not rest and MIN_BINS <= bins <= MAX_BINS else DEFAULT_BINS


def fastestdet(seen: Seen) -> Fit:
    """A map of cells: objectness, two offsets, two sizes, class probabilities."""
    name = seen.one(3)
    depth, high, wide = seen.shape(name)
    classes = _room(depth - 5, depth, "first")
    maps = np.concatenate(list(seen.outputs[name])).reshape(-1, depth, high * wide)
    seen.require(
        values.are_probabilities(maps[:, 0]) and values.are_probabilities(maps[:, 5:]),
        "its objectness and classes lie in 0 to 1",
    )
    seen.require(
        classes == 1 or values.sum_to_one(maps[:, 5:].transpose(0, 2, 1).reshape(-1, classes)),
        "the classes of a cell sum to 1",
    )
    return Fit(
        "fastestdet", {"head": name}, f"FastestDet: {depth} = 1 + 4 + {classes} of {high} x {wide} cells", classes
    )


def yolofastestv2(seen: Seen) -> Fit:
    """Rows of cells with three anchors each."""
    name = seen.one(2)
    high, wide = seen.shape(name)
    classes = _room(wide - 15, wide, "last")
    strides = tuple(seen.option("strides") or (16, 32))
    expected = values.cells(seen.size, strides)
    if high != expected:
        raise MisfitError(f"strides {','.join(map(str, strides))} make {expected} rows, not {high}")
    rows = seen.rows(name)
    seen.require(values.are_probabilities(rows), "all its values lie in 0 to 1")
    anchors = seen.option("anchors") or (YOLO_FASTEST_ANCHORS if classes == COCO_CLASSES else None)
    if anchors is None:
        raise MisfitError("its anchors are not in the file (if it is this family: --decoder yolofastestv2, --anchors)")
    if len(anchors) != 6 * len(strides):
        raise MisfitError(f"it needs {6 * len(strides)} numbers in --anchors, a width and a height for three a stride")
    settings = {"anchors": list(anchors), **({"strides": list(strides)} if strides != (16, 32) else {})}
    whose = "" if seen.option("anchors") else ", anchors of the published network"
    line = f"Yolo-FastestV2: {wide} = 3 x 4 + 3 + {classes}{whose}"
    return Fit("yolofastestv2", {"head": name}, line, classes, settings)


def scored_boxes(seen: Seen) -> Fit:
    """Boxes and class scores in two outputs."""
    boxes_name, scores_name = boxes_and_scores(seen)
    boxes, scores = seen.rows(boxes_name), seen.rows(scores_name)
    columns = scores.shape[1]
    seen.require_scores(scores)
    joined = boxes_name == BOXES  # by `levels`, which writes corners in pixels
    box_format = seen.option("box_format") or ("corners" if joined else values.format_of(boxes, seen.size))
    if box_format is None:
        if not seen.forced:
            raise MisfitError("its boxes are neither corners nor centres with sizes (still to be decoded by anchors?)")
        box_format = "corners"
    background = not joined and columns > 1 and values.sum_to_one(scores) and scores[:, 0].mean() > 1 / 2
    classes = columns - background
    settings = {
        **({} if box_format == "corners" else {"box_format": box_format}),
        **({"background": True} if background else {}),
        **({} if joined else seen.unit(boxes, "pixels")),
    }
    what = f"background + {classes}" if background else str(classes)
    line = f"boxes ({settings.get('box_format', 'corners')}, {settings.get('box_unit', 'pixels')}) and scores ({what})"
    roles = {"boxes": boxes_name, "scores": scores_name}
    return Fit("scored_boxes", roles, f"{line} before NMS", classes, settings)


def boxes_and_scores(seen: Seen) -> tuple[str, str]:
    """Return the names of two outputs: boxes [A, 4] or [A, 1, 4], and scores [A, C]."""
    if len(seen.outputs) != 2:
        raise MisfitError(f"it writes two outputs, not {len(seen.outputs)}")
    fours = [name for name in seen.outputs if seen.shape(name)[-1:] == (4,)]
    if len(fours) == 2:
        fours.sort(key=lambda name: _unlike_boxes(seen.rows(name)))
        fours = [name for name in fours if "box" in name.lower() or "det" in name.lower()] or fours
    if not fours:
        raise MisfitError("one of its outputs ends in four box sides")
    boxes = fours[0]
    (scores,) = [name for name in seen.outputs if name != boxes]
    if len(seen.shape(scores)) < 2 or len(seen.rows(scores)) != len(seen.rows(boxes)):
        raise MisfitError("its scores have one row for each box")
    return boxes, scores


def _unlike_boxes(rows: values.Array) -> int:
    """Return how little four columns look like boxes beside four others: pixels, then values in 0 to 1, then logits."""
    if values.are_probabilities(rows):
        return 1
    return 2 if (rows < 0).mean() > MOST_LOGITS else 0


MOST_LOGITS = 0.5
"""Share of logits below 0, since most classes are absent; boxes in pixels seldom begin outside the picture."""


def _room(classes: int, size: int, axis: str) -> int:
    if classes < 1:
        raise MisfitError(f"its {axis} axis of {size} leaves no room for classes")
    return classes
