"""A detector's candidates -> the boxes of the answer, in pixels of the upright picture, best first.

    head --decoders--> candidates --filter by class--> --best scores--> at most MAX_CANDIDATES
         --to_image--> pixels of the picture, clipped --suppress--> boxes

Classes are filtered before NMS, so that an answer for some classes is the full answer without the others. Boxes outside
the picture are dropped before NMS too: an invisible box must not suppress a visible one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from stages import thresholds
from stages.config import StepConfig
from stages.decoders import Candidates, Head, Tensors
from stages.scores import Array, Floats, Ids, whole_number
from stages.serving import RefusalError, flag, number

Doubles = npt.NDArray[np.float64]

# NMS compares each kept box with all lower-scoring candidates. With this limit the worst request (score threshold 0,
# IoU threshold 1, a thousand boxes) delays the other requests by less than 0.2 s. The limit costs no accuracy: a
# 640-pixel YOLO has 8,400 candidates, and larger heads lose only candidates that score below the best 10,000.
MAX_CANDIDATES: Final = 10_000
MAX_DETECTIONS: Final = 1000


class Boxes(NamedTuple):
    """The boxes of one picture, best first.

    `boxes` FP32 [k, 4] xmin, ymin, xmax, ymax in pixels of the upright picture; `scores` FP32 [k];
    `class_ids` INT32 [k].
    """

    boxes: Floats
    scores: Floats
    class_ids: Ids


@dataclass(frozen=True)
class Options:
    """The options of one detection request.

    Attributes:
        score_threshold: 0 to 1; the lowest score of a returned box.
        iou_threshold: 0 to 1; of two boxes of one class that overlap by more than this, only the better one is kept.
            Without effect on heads that need no NMS.
        max_detections: 1 to `MAX_DETECTIONS`.
        classes: BOOL [C], the classes to return; None for all.
        agnostic_nms: whether boxes of different classes suppress each other too.
        class_thresholds: by class id, a lowest score that replaces `score_threshold` for that class.

    """

    score_threshold: float
    iou_threshold: float
    max_detections: int
    classes: npt.NDArray[np.bool_] | None = None
    agnostic_nms: bool = False
    class_thresholds: thresholds.ByClass = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: StepConfig, labels: Sequence[str] = ()) -> Options:
        """Read a model's defaults from the parameters of its step; raises ConfigError when one is out of bounds."""
        return cls(
            score_threshold=config.number("score_threshold", 0, 1, 0.25),
            iou_threshold=config.number("iou_threshold", 0, 1, 0.45),
            max_detections=config.integer("max_detections", 1, MAX_DETECTIONS, 100),
            agnostic_nms=config.choice("agnostic_nms", ("true", "false"), "false") == "true",
            class_thresholds=thresholds.configured(config, labels, class_ids_of),
        )

    def override(self, given: dict[str, Any], labels: Sequence[str]) -> Options:
        """Return a copy in which the options given by a request replace these defaults.

        Raises:
            RefusalError: `invalid_parameter`, naming the option.

        """
        return Options(
            score_threshold=number(given, "score_threshold", self.score_threshold, 0, 1),
            iou_threshold=number(given, "iou_threshold", self.iou_threshold, 0, 1),
            max_detections=whole_number(given, "max_detections", self.max_detections, 1, MAX_DETECTIONS),
            classes=wanted_classes(given, labels),
            agnostic_nms=flag(given, "agnostic_nms", self.agnostic_nms),
            class_thresholds=thresholds.asked(given, labels, self.class_thresholds, class_ids_of),
        )


def wanted_classes(options: Mapping[str, Any], labels: Sequence[str]) -> npt.NDArray[np.bool_] | None:
    """Return the classes that the option `classes` names, BOOL [C]; None when it is absent.

    The option is a JSON array of labels and class ids in any mixture; a string of digits that is not a label is an id.

    Raises:
        RefusalError: `invalid_parameter`, when the option is not such an array, is empty, or names an unknown class.

    """
    if "classes" not in options:
        return None
    try:
        names = json.loads(options["classes"])
    except (TypeError, ValueError):
        names = None
    if not isinstance(names, list) or not names:
        raise RefusalError("invalid_parameter", "classes must be a JSON array of labels or class ids.")
    wanted = np.zeros(len(labels), np.bool_)
    for name in names:
        wanted[class_ids_of(name, labels, "classes")] = True
    return wanted


def class_ids_of(name: object, labels: Sequence[str], option: str) -> list[int]:
    """Return the class ids that one name stands for: a label (labels may repeat), or an id as a number or as text.

    Raises:
        RefusalError: `invalid_parameter`, naming the option, when there is no such class.

    """
    text = str(name)
    matching = [index for index, label in enumerate(labels) if label == text] if isinstance(name, str) else []
    if matching:
        return matching
    is_number = not isinstance(name, bool) and text.isascii() and text.isdigit() and len(text) <= 9
    if not is_number or int(text) >= len(labels):
        raise RefusalError("invalid_parameter", f"{option} names '{text[:100]}', which this model does not know.")
    return [int(text)]


def detect(tensors: Tensors, head: Head, options: Options, geometry: Floats, image_size: Array, classes: int) -> Boxes:
    """Return the boxes of one picture.

    Args:
        tensors: the head's tensors by name, without the batch.
        head: how to read the tensors.
        options: of the request.
        geometry: FP32 [4], scale_x, scale_y, pad_x, pad_y: network input pixel = picture pixel x scale + pad.
        image_size: [2], width and height of the upright picture in pixels.
        classes: number of labels.

    Raises:
        RefusalError: `backend_error`, when a value of the head is not finite or a class has no label.

    """
    lowest = min([options.score_threshold, *options.class_thresholds.values()])
    found = head.decode(tensors, lowest, np.rint(image_size * geometry[:2]).tolist())
    if found.class_ids.size and not 0 <= found.class_ids.min() <= found.class_ids.max() < classes:
        raise RefusalError("backend_error", "the network returned a class that has no label")
    if options.class_thresholds:
        found = _take(
            found,
            thresholds.keep(found.scores, found.class_ids, options.score_threshold, options.class_thresholds, classes),
        )
    if options.classes is not None:
        found = _take(found, np.flatnonzero(options.classes[found.class_ids]))
    found = _take(found, np.argsort(-found.scores, kind="stable")[:MAX_CANDIDATES])
    unclipped, clipped = to_image(found.boxes, geometry, image_size)
    visible = np.flatnonzero((clipped[:, 2:] > clipped[:, :2]).all(axis=1))
    found = _take(found._replace(boxes=clipped), visible)
    kept = np.arange(len(visible))[: options.max_detections]
    if head.overlaps:
        groups = np.zeros_like(found.class_ids) if options.agnostic_nms else found.class_ids
        kept = suppress(unclipped[visible], groups, options.iou_threshold, options.max_detections)
    return Boxes(*_take(found, kept))


def _take(candidates: Candidates, chosen: Array) -> Candidates:
    return Candidates(candidates.boxes[chosen], candidates.scores[chosen], candidates.class_ids[chosen])


def to_image(boxes: Floats, geometry: Floats, image_size: Array) -> tuple[Doubles, Floats]:
    """Map boxes [k, 4] from the network's input to the picture's pixels; return them unclipped and clipped.

    The unclipped boxes are FP64: the area of a box with finite FP32 corners is finite in FP64.
    """
    scale, pad = np.tile(geometry[:2], 2), np.tile(geometry[2:], 2)
    mapped = (boxes.astype(np.float64) - pad) / scale
    return mapped, mapped.clip(0, np.tile(image_size, 2)).astype(np.float32)


def suppress(boxes: Doubles, class_ids: Ids, iou_threshold: float, limit: int) -> Array:
    """Return the indices of the boxes that non-maximum suppression keeps, at most `limit`, best first.

    A box is dropped when it overlaps a better box of its class by more than `iou_threshold`. The loop runs over kept
    boxes only; each is compared, in one array operation, with the remaining boxes of its class.

    Args:
        boxes: [k, 4] xmin, ymin, xmax, ymax of positive area, best first.
        class_ids: INT32 [k].
        iou_threshold: intersection over union, 0 to 1.
        limit: number of kept boxes after which the loop ends.

    """
    edges = np.ascontiguousarray(boxes.T)
    areas = (edges[2] - edges[0]) * (edges[3] - edges[1])
    alive = np.ones(len(boxes), np.bool_)
    kept: list[int] = []
    current = 0
    while len(kept) < limit and current < len(boxes):
        current += int(alive[current:].argmax())
        if not alive[current]:
            break
        kept.append(current)
        behind = current + 1 + np.flatnonzero(alive[current + 1 :] & (class_ids[current + 1 :] == class_ids[current]))
        overlap = _iou(edges[:, current], edges[:, behind], areas[current], areas[behind])
        alive[behind[overlap > iou_threshold]] = False
        current += 1
    return np.array(kept, np.intp)


def _iou(box: Doubles, others: Doubles, area: np.float64, areas: Doubles) -> Doubles:
    """Return intersection over union of one box [4] with others [4, k], FP64 [k]; all areas are positive."""
    width = np.minimum(box[2], others[2]) - np.maximum(box[0], others[0])
    height = np.minimum(box[3], others[3]) - np.maximum(box[1], others[1])
    common = width.clip(0) * height.clip(0)
    return np.asarray(common / (area + areas - common), np.float64)
