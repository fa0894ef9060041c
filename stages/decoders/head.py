"""`Head`: a detector's head, read from its postprocess step's config, and the table of families."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from stages.config import ConfigError, StepConfig
from stages.decoders import dense, fastest, nanodet, queries, suppressed, yolo
from stages.decoders.candidates import FORMATS, UNITS, Candidates, Tensors
from stages.decoders.layout import Layout
from stages.scores import ACTIVATIONS, require_finite

NOT_HEAD: Final = ("geometry", "image_size")
"""A detection step's inputs that are not part of the head."""

Dims = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Family:
    """One family of heads.

    Attributes:
        decode: its decoder.
        classes: the number of classes by the dims of the head's inputs; -1 when the dims leave it open.
        inputs: the names of its inputs; empty when it takes one input of any name.
        optional: names of inputs that may be absent.
        overlaps: whether candidates of one object overlap, so that NMS is needed.
        activation: the default.
        unit: the default, one of `UNITS`.
        parameters: the parameters of `Layout` that only some families take.

    """

    decode: Callable[[Tensors, Layout, float], Candidates]
    classes: Callable[[Dims, Layout], int]
    inputs: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    overlaps: bool = True
    activation: str = "none"
    unit: str = "pixels"
    parameters: tuple[str, ...] = ()
    strides: str = "8,16,32"


def _last(other: int) -> Callable[[Dims, Layout], int]:
    """Count the classes in the last axis of the only input, which holds `other` more columns."""
    return lambda dims, _: max(_only(dims)[-1] - other, -1)


def _first(other: int) -> Callable[[Dims, Layout], int]:
    return lambda dims, _: max(_only(dims)[0] - other, -1)


def _only(dims: Dims) -> tuple[int, ...]:
    (shape,) = dims.values()
    return shape


def _bins(dims: Dims, layout: Layout) -> int:
    return max(_only(dims)[-1] - 4 * layout.bins, -1)


def _open(_dims: Dims, _layout: Layout) -> int:
    return -1


FAMILIES: Final[Mapping[str, Family]] = {
    "yolov5": Family(yolo.with_objectness, _last(5)),
    "yolov8": Family(yolo.yolov8, _first(4)),
    "yolox": Family(yolo.with_objectness, _last(5), parameters=("encoded", "strides")),
    "detr": Family(
        queries.detr,
        lambda dims, layout: max(dims["logits"][-1] - (layout.activation == "softmax"), -1),
        inputs=("logits", "boxes"),
        overlaps=False,
        activation="softmax",
        unit="normalized",
    ),
    "rtdetr": Family(queries.rtdetr, _last(4), overlaps=False, unit="normalized"),
    "end_to_end": Family(
        suppressed.end_to_end, _open, overlaps=False, parameters=("box_format", "columns", "first_class")
    ),
    "detections": Family(
        suppressed.detections,
        _open,
        inputs=("boxes", "scores", "classes"),
        optional=("count",),
        overlaps=False,
        parameters=("box_format", "first_class"),
    ),
    "scored_boxes": Family(
        dense.scored_boxes,
        lambda dims, layout: max(dims["scores"][-1] - layout.background, -1),
        inputs=("boxes", "scores"),
        parameters=("box_format", "background"),
    ),
    "nanodet": Family(nanodet.nanodet, _bins, parameters=("strides", "bins")),
    "nanodet_plus": Family(nanodet.nanodet_plus, _bins, parameters=("strides", "bins"), strides="8,16,32,64"),
    "fastestdet": Family(fastest.fastestdet, _first(5)),
    "yolofastestv2": Family(
        fastest.yolofastestv2,
        _last(5 * fastest.ANCHORS_PER_CELL),
        parameters=("strides", "anchors"),
        strides="16,32",
    ),
}


@dataclass(frozen=True)
class Head(Layout):
    """One detector's head: its layout, checked, and its decoder."""

    @classmethod
    def of(cls, config: StepConfig) -> Head:
        """Read a head from a step's config; raises ConfigError when a parameter or a tensor does not fit."""
        decoder = config.choice("decoder", tuple(FAMILIES))
        family = FAMILIES[decoder]
        head = cls(
            decoder=decoder,
            inputs=_inputs(config, decoder),
            width=config.integer("width", 0, 65536, 0),
            height=config.integer("height", 0, 65536, 0),
            activation=config.choice("activation", ACTIVATIONS, family.activation),
            normalized=config.choice("box_unit", UNITS, family.unit) == "normalized",
            encoded=config.choice("encoded", ("true", "false"), "false") == "true",
            strides=_strides(config.text("strides", family.strides)),
            box_format=config.choice("box_format", FORMATS, "corners"),
            columns=_columns(config.text("columns", "box,score,class")),
            background=config.choice("background", ("true", "false"), "false") == "true",
            first_class=config.integer("first_class", 0, 1000, 0),
            bins=config.integer("bins", 2, 64, 8),
            anchors=_anchors(config.text("anchors", "")),
            nms=config.choice("nms", ("true", "false"), "true" if family.overlaps else "false") == "true",
        )
        head._check(config)
        return head

    def _check(self, config: StepConfig) -> None:
        """Raise ConfigError when parameters contradict each other."""
        family = FAMILIES[self.decoder]
        if not (self.width and self.height) and (not self.normalized or self.width or self.height):
            raise ConfigError("width and height are required, except for normalized boxes of pictures of any size.")
        if self.decoder not in ("detr", "scored_boxes") and self.activation == "softmax":
            raise ConfigError("activation softmax is for the decoders 'detr' and 'scored_boxes' only.")
        if self.decoder != "yolox" and self.encoded:
            raise ConfigError("encoded boxes are for the decoder 'yolox' only.")
        for name in ("box_format", "columns", "background", "first_class", "bins", "anchors"):
            if name in config.parameters and name not in family.parameters:
                raise ConfigError(f"The parameter '{name}' is not for the decoder '{self.decoder}'.")
        if self.decoder == "yolofastestv2" and len(self.anchors) != 2 * fastest.ANCHORS_PER_CELL * len(self.strides):
            raise ConfigError("anchors must be a width and a height for three anchors of each stride.")

    def classes(self, config: StepConfig) -> int:
        """Return the number of classes by the head's dims; -1 when the dims leave it open."""
        return FAMILIES[self.decoder].classes({name: config.inputs[name].dims for name in self.inputs}, self)

    @property
    def overlaps(self) -> bool:
        """Whether candidates of one object overlap, so that NMS is needed."""
        return FAMILIES[self.decoder].overlaps if self.nms is None else self.nms

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
            found = FAMILIES[self.decoder].decode(tensors, self, score_threshold)
            boxes = found.boxes
            if self.normalized:
                boxes = boxes * np.tile(np.array(size if self.width == 0 else (self.width, self.height), np.float32), 2)
        require_finite(boxes)
        return found._replace(boxes=boxes)


def _inputs(config: StepConfig, decoder: str) -> tuple[str, ...]:
    """Return the head's inputs; raises ConfigError when they are not those of the family."""
    family = FAMILIES[decoder]
    inputs = tuple(name for name in config.inputs if name not in NOT_HEAD)
    if family.inputs:
        wanted = "the inputs " + " and ".join(f"'{name}'" for name in family.inputs)
        fits = set(family.inputs) <= set(inputs) <= {*family.inputs, *family.optional}
    else:
        wanted, fits = "one input beside 'geometry' and 'image_size'", len(inputs) == 1
    if not fits:
        raise ConfigError(f"The decoder '{decoder}' takes {wanted}, not {', '.join(inputs) or 'none'}.")
    return inputs


def _strides(text: str) -> tuple[int, ...]:
    try:
        strides = tuple(int(part) for part in text.split(","))
    except ValueError:
        strides = ()
    if not strides or min(strides) < 1:
        raise ConfigError(f"The parameter 'strides' must be whole numbers such as 8,16,32, not '{text}'.")
    return strides


def _columns(text: str) -> tuple[str, ...]:
    columns = tuple(text.split(","))
    if len(set(columns)) != len(columns) or {"batch", *columns} != set(suppressed.COLUMNS):
        raise ConfigError(f"The parameter 'columns' must name box, score, class and perhaps batch, not '{text}'.")
    return columns


def _anchors(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise ConfigError(f"The parameter 'anchors' must be numbers such as 12.6,19.4, not '{text}'.") from None
