"""Heads behind which the network has done NMS: rows, or one output each for boxes, scores and classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from modelctl.sources.heads import values
from modelctl.sources.heads.seen import EmptyError, Fit, MisfitError, Seen
from modelctl.sources.heads.values import Array

Columns = tuple[str, ...]
WIDTHS: Final = {"batch": 1, "class": 1, "score": 1, "box": 4}
DEFAULT: Final[Columns] = ("box", "score", "class")
DEFAULT_WIDTH: Final = 6
ORDERS: Final[tuple[Columns, ...]] = (
    DEFAULT,
    ("class", "score", "box"),
    ("box", "class", "score"),
    ("batch", "class", "score", "box"),
    ("batch", "box", "class", "score"),
    ("batch", "box", "score", "class"),
)
TFLITE: Final = ("tflite_detection", "statefulpartitionedcall")
"""Beginnings of output names whose class ids count objects alone, also where the labels begin with the background."""
TENSORFLOW: Final = ("detection_", *TFLITE)
"""Beginnings of output names whose boxes are ymin, xmin, ymax, xmax."""
FROM_ZERO: Final = ({"boxes", "scores", "labels"}, {"det_boxes", "det_scores", "det_classes"})
"""Names of outputs whose class ids are known to begin with 0: D-FINE's and EfficientNMS'."""
NAMED_ORDER: Final = "batchno_classid_score_x1y1x2y2"
BACKGROUND: Final = ("background", "__background__", "bg", "n/a", "???", "none")


NOTHING: Final = (
    "it found nothing in the sample pictures, so that its columns are unknown: give --columns, such as "
    "box,score,class (YOLOv10), batch,box,class,score (YOLOv7) or class,score,box (PaddleDetection)"
)


def end_to_end(seen: Seen) -> Fit:
    """Rows of box, score and class in some order, perhaps with the batch index."""
    if len(seen.outputs) != 1:
        raise MisfitError(f"it writes one output, not {len(seen.outputs)}")
    (name,) = seen.outputs
    wide = seen.shape(name)[-1]
    asked = seen.option("columns")
    orders = [tuple(asked)] if asked else [one for one in ORDERS if sum(WIDTHS[part] for part in one) == wide]
    if not orders or sum(WIDTHS[part] for part in orders[0]) != wide:
        raise MisfitError(f"it writes rows of 6 or 7 numbers, not {wide}")
    rows = seen.rows(name)
    count = len(rows) // len(seen.outputs[name])
    seen.require(not seen.is_grid(count, (1, 3)), f"its {count} rows are one for each cell, and overlap still")
    # Ultralytics, whose files name their head, write one order; RT-DETR's rows may also be boxes and two classes.
    is_told = wide == DEFAULT_WIDTH and (seen.forced or (seen.head and "RTDETR" not in seen.head))
    columns = orders[0] if asked or is_told else _order(seen, orders)
    settings: dict[str, Any] = {} if columns == DEFAULT else {"columns": list(columns)}
    boxes = _found(rows, columns)["box"]
    settings |= _boxes(seen, boxes)
    doubts = [] if seen.head else _format_doubts(seen, boxes, settings)
    if seen.option("first_class"):
        settings["first_class"] = seen.option("first_class")
    how = f"{settings.get('box_format', 'corners')}, {settings.get('box_unit', 'pixels')}"
    line = f"rows after NMS: {', '.join(columns)} ({how})"
    return Fit("end_to_end", {"head": name}, line, None, settings, doubts)


def _parts(rows: Array, columns: Columns) -> dict[str, Array]:
    starts = np.cumsum([0, *(WIDTHS[part] for part in columns)])
    return {part: rows[:, start : start + WIDTHS[part]] for part, start in zip(columns, starts, strict=False)}


def _found(rows: Array, columns: Columns) -> dict[str, Array]:
    """Return the parts of the rows that are no padding."""
    parts = _parts(rows, columns)
    real = (parts["score"][:, 0] > 0) & (parts["class"][:, 0] >= 0)
    if "batch" in parts:
        real &= parts["batch"][:, 0] >= 0
    return {part: array[real] for part, array in parts.items()}


def _order(seen: Seen, orders: list[Columns]) -> Columns:
    """Return the only order of columns that the rows allow."""
    (name,) = seen.outputs
    rows = seen.rows(name)
    if not (rows > 0).any():
        if NAMED_ORDER in name.lower():
            return ("batch", "class", "score", "box")
        raise EmptyError(NOTHING)
    fitting = [one for one in orders if _is_possible(seen, rows, one)]
    if not fitting:
        raise MisfitError("no order of its columns gives whole class ids, scores in 0 to 1 and boxes in the picture")
    if len(fitting) > 1 and fitting[0] != DEFAULT:
        listed = " or ".join(",".join(one) for one in fitting)
        raise MisfitError(f"its columns may be {listed}: give --columns")
    return fitting[0]


def _is_possible(seen: Seen, rows: Array, columns: Columns) -> bool:
    parts = _found(rows, columns)
    if not len(parts["score"]) or ("batch" in parts and parts["batch"].any()):
        return False
    if not values.are_whole(parts["class"]) or not values.are_probabilities(parts["score"]):
        return False
    first = seen.option("first_class") or 0
    if seen.labels and parts["class"].max() - first > len(seen.labels):  # a class too many is refused with its number
        return False
    return values.unit_of(parts["box"]) is not None and values.format_of(parts["box"], seen.size) is not None


def _boxes(seen: Seen, boxes: Array) -> dict[str, Any]:
    """Return the settings of how boxes are written, where they are not the family's own."""
    centred = "RTDETR" in seen.head
    corners = bool(seen.head) and not centred  # of Ultralytics: in pixels, also where they leave the picture
    told = "centre" if centred else "corners" if corners else None
    found = seen.option("box_format") or told or values.format_of(boxes, seen.size)
    seen.require(found is not None, "its boxes are neither corners nor centres with sizes")
    unit = seen.option("box_unit") or ("normalized" if centred else None if corners else values.unit_of(boxes))
    made: dict[str, Any] = {"box_format": found} if found and found != "corners" else {}
    return made | ({"box_unit": "normalized"} if unit == "normalized" else {})


def _format_doubts(seen: Seen, boxes: Array, settings: dict[str, Any]) -> list[str]:
    """Return a doubt where the few boxes of the samples are corners as well as centres with sizes."""
    if seen.option("box_format") or "box_format" in settings or not values.may_be_centres(boxes, seen.size):
        return []
    return [
        f"The {len(boxes)} boxes that it finds in the samples are read as corners, and may be centres with sizes: look "
        "at them with --save-pictures, then give --box-format corners or centre."
    ]


def detections(seen: Seen) -> Fit:
    """Boxes, scores and classes in one output each, perhaps with their count."""
    roles = _roles(seen)
    scores, classes, boxes = (
        seen.rows(roles[role], width) for role, width in (("scores", 1), ("classes", 1), ("boxes", 4))
    )
    seen.require(values.are_probabilities(scores), f"its scores would be {values.spread(scores)}, not 0 to 1")
    # TensorFlow Lite leaves anything in the rows behind the count.
    found = scores[:, 0] > 0
    classes, boxes = classes[found & (classes[:, 0] >= 0)], boxes[found & (classes[:, 0] >= 0)]
    seen.require(values.are_whole(classes), "its class ids are whole numbers")
    settings = _boxes(seen, boxes)
    tensorflow = any(name.lower().startswith(TENSORFLOW) for name in roles.values())
    if tensorflow and not seen.option("box_format"):
        settings["box_format"] = "yxyx"
    elif settings.get("box_format") != "centre" and "count" in roles and settings.get("box_unit") == "normalized":
        seen.require(
            bool(seen.option("box_format")) or "det_boxes" in roles["boxes"],
            "its boxes in 0 to 1 may be corners or TensorFlow's yxyx: give --box-format",
        )
    first = seen.option("first_class")
    first = _first_class(seen, roles, classes) if first is None else first
    if first:
        settings["first_class"] = first
    rows = len(scores) // len(seen.outputs[roles["scores"]])
    if values.grid_of(rows, seen.size, (1, 3)) is not None and rows > max(seen.size):
        settings["nms"] = True
    how = f"{settings.get('box_format', 'corners')}, {settings.get('box_unit', 'pixels')}"
    after = "before NMS" if settings.get("nms") else "after NMS"
    offset = f", class {first} is the first label" if first else ""
    doubts = [] if _is_known(roles) else _format_doubts(seen, boxes, settings)
    return Fit("detections", roles, f"boxes ({how}), scores, classes {after}{offset}", None, settings, doubts)


def _roles(seen: Seen) -> dict[str, str]:
    """Return the outputs by their roles: by shape, then by name, then by values."""
    boxes = [name for name in seen.outputs if seen.shape(name)[-1:] == (4,) and "raw" not in name.lower()]
    if len(boxes) != 1:
        raise MisfitError("one of its outputs ends in four box sides")
    count = len(seen.rows(boxes[0], 4))
    rest = [name for name in seen.outputs if name != boxes[0] and "raw" not in name.lower()]
    lists = [name for name in rest if len(seen.rows(name, 1)) == count and len(seen.shape(name)) <= 2]
    numbers = [name for name in rest if name not in lists and seen.shape(name) in ((), (1,))]
    classes = [name for name in lists if _is_class_list(seen, name)]
    if not classes and len(lists) == 2:  # all zeros where there is one class, beside scores
        classes = [name for name in lists if values.are_whole(seen.rows(name, 1))]
    scores = [name for name in lists if name not in classes]
    if len(classes) != 1 or len(scores) != 1:
        raise MisfitError("it writes one score and one class id for each box")
    roles = {"boxes": boxes[0], "scores": scores[0], "classes": classes[0]}
    return {**roles, "count": numbers[0]} if len(numbers) == 1 else roles


def _is_class_list(seen: Seen, name: str) -> bool:
    if any(part in name.lower() for part in ("score", "conf", "prob")):
        return False
    if any(part in name.lower() for part in ("class", "label")) or seen.outputs[name][0].dtype.kind in "iu":
        return True
    found = seen.rows(name, 1)
    return values.are_whole(found) and bool((found != 0).any())


def _first_class(seen: Seen, roles: dict[str, str], ids: Array) -> int:
    """Return the class id of the first label: 1 in TensorFlow's and torchvision's detectors, unless it is named."""
    if seen.labels and is_background(seen.labels[0]):
        return 0
    names = {roles["boxes"], roles["scores"], roles["classes"]}
    if roles["classes"].lower().startswith("detection_classes") or (names == FROM_ZERO[0] and seen.unbatched):
        return 1
    if not _is_known(roles) and (not len(ids) or ids.min() >= 1):
        raise MisfitError("its class ids may begin with 0 or 1: give --first-class")
    return 0


def _is_known(roles: dict[str, str]) -> bool:
    """Tell whether the names are those of a family, which say how it writes boxes and class ids."""
    names = {roles["boxes"], roles["scores"], roles["classes"]}
    return names in FROM_ZERO or roles["classes"].lower().startswith((*TFLITE, "detected_"))


def leaves_out_background(fit: Fit, labels: Sequence[str]) -> bool:
    """Tell whether the first label names the background, of which the head does not speak."""
    if not labels or not is_background(labels[0]):
        return False
    scores = fit.settings.get("background") and len(labels) == (fit.classes or 0) + 1
    return bool(scores or fit.roles.get("classes", "").lower().startswith(TFLITE))


def is_background(label: str) -> bool:
    """Tell whether a label names what is no object."""
    return label.strip().lower() in BACKGROUND
