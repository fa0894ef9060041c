"""A detector's raw head -> candidates: boxes in the network's input pixels, each with one class and one score.

One decoder for each family of heads; a step's config names it, with the parameters of `Head`. All decode
one item at a time, not the batch: nearly all candidates are below the score threshold and are dropped at the first
column that decides it, which is cheaper than decoding a whole batch as one array.

    yolov5      [A, 5+C]   cx, cy, w, h, objectness, classes: YOLOv5, v6, v7. Score = objectness x class.
    yolov8      [4+C, A]   cx, cy, w, h, classes, transposed: YOLOv8 to v12. Score = class.
    yolox       [A, 5+C]   as yolov5; with the parameter `encoded: "true"` boxes are relative to grid and stride.
    detr        `logits` and `boxes` [Q, 4], cx, cy, w, h in 0..1. activation softmax, logits [Q, C+1] (DETR, YOLOS):
                the last class is "no object". activation sigmoid, logits [Q, C] (Deformable DETR, RT-DETR, RF-DETR,
                D-FINE): the best Q pairs of query and class, so that one box may have two classes.
    end_to_end  [K, 6]     xmin, ymin, xmax, ymax, score, class id: YOLOv10, and exports with NMS inside.

A candidate has only its best class, except with detr and sigmoid. `detr` and `end_to_end` need no NMS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from stages.config import ConfigError, StepConfig
from stages.scores import ACTIVATIONS, Array, Floats, Ids, activate, require_finite, softmax
from stages.serving import RefusalError

# A detection step's inputs that are not part of the head.
NOT_HEAD: Final = ("geometry", "image_size")
UNITS: Final = ("pixels", "normalized")


class Candidates(NamedTuple):
    """Boxes before NMS, in the network's input pixels.

    `boxes` FP32 [k, 4] xmin, ymin, xmax, ymax; `scores` FP32 [k]; `class_ids` INT32 [k].
    """

    boxes: Floats
    scores: Floats
    class_ids: Ids


Tensors = Mapping[str, Array]
Decoder = Callable[[Tensors, "Head", float], Candidates]


@dataclass(frozen=True)
class Head:
    """One detector's head, read from the parameters of its postprocess step.

    Attributes:
        decoder: the family, one of `DECODERS`.
        inputs: the head's tensors, in the config's order.
        width: of the network's input, in pixels (parameter `width`); 0 when every picture has its own.
        height: of the network's input, in pixels (parameter `height`).
        activation: turns the head's scores into probabilities (parameter `activation`, one of `scores.ACTIVATIONS`).
            `none` when the network applies it itself. Default `softmax` for detr, `none` for all others.
        normalized: whether boxes are in 0..1 of the input (parameter `box_unit`: `pixels` or `normalized`). Default
            `normalized` for detr, `pixels` for all others.
        encoded: yolox only: whether boxes are relative to their grid cell (parameter `encoded`: `true` or `false`, the
            default).
        strides: encoded yolox only: pixels of a grid cell, level by level (parameter `strides`, default `8,16,32`).

    """

    decoder: str
    inputs: tuple[str, ...]
    width: int
    height: int
    activation: str = "none"
    normalized: bool = False
    encoded: bool = False
    strides: tuple[int, ...] = (8, 16, 32)

    @classmethod
    def of(cls, config: StepConfig) -> Head:
        """Read a head from a step's config; raises ConfigError when a parameter or a tensor does not fit."""
        decoder = config.choice("decoder", tuple(DECODERS))
        detr = decoder == "detr"
        inputs = tuple(name for name in config.inputs if name not in NOT_HEAD)
        if set(inputs) != {"logits", "boxes"} if detr else len(inputs) != 1:
            wanted = "the inputs 'logits' and 'boxes'" if detr else "one input beside 'geometry' and 'image_size'"
            raise ConfigError(f"The decoder '{decoder}' takes {wanted}, not {', '.join(inputs) or 'none'}.")
        head = cls(
            decoder=decoder,
            inputs=inputs,
            width=config.integer("width", 0, 65536, 0),
            height=config.integer("height", 0, 65536, 0),
            activation=config.choice("activation", ACTIVATIONS, "softmax" if detr else "none"),
            normalized=config.choice("box_unit", UNITS, "normalized" if detr else "pixels") == "normalized",
            encoded=config.choice("encoded", ("true", "false"), "false") == "true",
            strides=_strides(config.text("strides", "8,16,32")),
        )
        if not (head.width and head.height) and (not head.normalized or head.width or head.height):
            raise ConfigError("width and height are required, except for normalized boxes of pictures of any size.")
        if not detr and head.activation == "softmax":
            raise ConfigError("activation softmax is for the decoder 'detr' only.")
        if decoder != "yolox" and head.encoded:
            raise ConfigError("encoded boxes are for the decoder 'yolox' only.")
        return head

    def classes(self, config: StepConfig) -> int:
        """Return the number of classes by the head's dims; -1 when the dims leave it open."""
        dims = {name: config.inputs[name].dims for name in self.inputs}
        if self.decoder == "end_to_end":
            return -1
        if self.decoder == "detr":
            return max(dims["logits"][-1] - (self.activation == "softmax"), -1)
        (shape,) = dims.values()
        return max(shape[0] - 4, -1) if self.decoder == "yolov8" else max(shape[-1] - 5, -1)

    @property
    def overlaps(self) -> bool:
        """Whether candidates of one object overlap, so that NMS is needed."""
        return self.decoder not in ("detr", "end_to_end")

    def decode(self, tensors: Tensors, score_threshold: float, size: Sequence[float] = ()) -> Candidates:
        """Return the candidates of one item that score at least `score_threshold`, in the head's order.

        Args:
            tensors: the head's tensors by name, without the batch.
            score_threshold: 0 to 1.
            size: width and height of the network's input in pixels; used when the head leaves them open.

        Raises:
            RefusalError: `backend_error`, when a value is not finite, or a score is not a probability.

        """
        for tensor in tensors.values():
            require_finite(tensor)
        with np.errstate(over="ignore", invalid="ignore"):  # an overflow is not finite, and is refused below
            found = DECODERS[self.decoder](tensors, self, score_threshold)
            boxes = found.boxes
            if self.normalized:
                boxes = boxes * np.tile(np.array(size if self.width == 0 else (self.width, self.height), np.float32), 2)
        require_finite(boxes)
        return found._replace(boxes=boxes)


def corners(boxes: Array) -> Floats:
    """Convert boxes [k, 4] from cx, cy, w, h to xmin, ymin, xmax, ymax."""
    half = boxes[:, 2:] / 2
    return np.asarray(np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1), np.float32)


def _with_objectness(tensors: Tensors, head: Head, threshold: float) -> Candidates:
    """Decode cx, cy, w, h, objectness, classes. A class score is at most 1, so objectness can filter first."""
    (rows,) = tensors.values()
    objectness = activate(rows[:, 4], head.activation)
    chosen = np.flatnonzero(objectness >= threshold)
    classes = activate(rows[chosen, 5:], head.activation)
    class_ids = classes.argmax(axis=1)
    scores = objectness[chosen] * classes[np.arange(len(chosen)), class_ids]
    kept = scores >= threshold
    boxes = _from_grid(rows, chosen[kept], head) if head.encoded else rows[chosen[kept], :4]
    return Candidates(corners(boxes), scores[kept], class_ids[kept].astype(np.int32))


def _from_grid(rows: Array, chosen: Array, head: Head) -> Array:
    """Convert the chosen boxes from grid cells to pixels, cx, cy, w, h: (offset + cell) x stride, exp(size) x stride.

    Source: YOLOX, `demo_postprocess` of its ONNX demo.
    """
    cells = grid(head.width, head.height, head.strides)
    if len(cells) != len(rows):
        raise RefusalError("backend_error", "the network's output does not fit its strides")
    cells = cells[chosen]
    centres = (rows[chosen, :2] + cells[:, :2]) * cells[:, 2:]
    return np.concatenate([centres, np.exp(rows[chosen, 2:4]) * cells[:, 2:]], axis=1)


def grid(width: int, height: int, strides: Sequence[int]) -> Floats:
    """Return column, row and stride of every grid cell, FP32 [A, 3], level by level and row by row."""
    levels = []
    for stride in strides:
        ys, xs = np.mgrid[: height // stride, : width // stride]
        levels.append(np.stack([xs.ravel(), ys.ravel(), np.full(xs.size, stride)], axis=1))
    return np.asarray(np.concatenate(levels), np.float32)


def _yolov8(tensors: Tensors, head: Head, threshold: float) -> Candidates:
    (columns,) = tensors.values()
    scores = activate(columns[4:].max(axis=0), head.activation)  # both activations keep the order
    chosen = np.flatnonzero(scores >= threshold)
    class_ids = columns[4:, chosen].argmax(axis=0).astype(np.int32)
    return Candidates(corners(columns[:4, chosen].T), scores[chosen], class_ids)


def _detr(tensors: Tensors, head: Head, threshold: float) -> Candidates:
    """Decode queries. Source: `post_process_object_detection` of DETR and of RT-DETR in transformers."""
    logits, boxes = tensors["logits"], tensors["boxes"]
    if head.activation == "softmax":
        classes = softmax(logits)[:, :-1]
        queries = np.arange(len(classes))
        class_ids = classes.argmax(axis=1)
        scores = classes[queries, class_ids]
    else:
        flat = activate(logits, head.activation).ravel()
        best = np.argsort(-flat, kind="stable")[: len(logits)]
        queries, class_ids = np.divmod(best, logits.shape[1])
        scores = flat[best]
    kept = scores >= threshold
    return Candidates(corners(boxes[queries[kept]]), scores[kept], class_ids[kept].astype(np.int32))


def _end_to_end(tensors: Tensors, head: Head, threshold: float) -> Candidates:
    (rows,) = tensors.values()
    rows = rows[rows[:, 5] >= 0]  # exports pad to K rows with class -1
    scores = activate(rows[:, 4], head.activation)
    kept = scores >= threshold
    return Candidates(rows[kept, :4].astype(np.float32), scores[kept], np.rint(rows[kept, 5]).astype(np.int32))


DECODERS: Final[Mapping[str, Decoder]] = {
    "yolov5": _with_objectness,
    "yolov8": _yolov8,
    "yolox": _with_objectness,
    "detr": _detr,
    "end_to_end": _end_to_end,
}


def _strides(text: str) -> tuple[int, ...]:
    try:
        strides = tuple(int(part) for part in text.split(","))
    except ValueError:
        strides = ()
    if not strides or min(strides) < 1:
        raise ConfigError(f"The parameter 'strides' must be whole numbers such as 8,16,32, not '{text}'.")
    return strides
