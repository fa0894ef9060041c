"""One item's answer together with the values it was read from, so that faults of the recipe and of the head show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from modelctl.models.spec import ObjectDetection
from modelctl.reference import answers
from modelctl.reference.answers import Found
from modelctl.reference.model import Reference
from modelctl.reference.pictures import Placement

Array = npt.NDArray[Any]
LIMIT = 1e6
"""Pixels at which coordinates are cut: a misread exponent gives infinity."""


def _no_boxes() -> Array:
    return np.empty((0, 4))


@dataclass(frozen=True)
class Examined:
    """One item's answer.

    Attributes:
        found: the answer, best first.
        logits: FP64 [C], the classifier's output before the activation; empty for a detector.
        boxes: FP64 [N, 4], every candidate's corners in the tensor's pixels, neither suppressed nor cut to the picture.
        place: where the picture lies in the tensor; None for a text.

    """

    found: list[Found]
    logits: Array = field(default_factory=lambda: np.empty(0))
    boxes: Array = field(default_factory=_no_boxes)
    place: Placement | None = None

    @property
    def in_picture(self) -> Array:
        """`boxes` in the pixels of the upright picture."""
        if self.place is None:
            return self.boxes
        return np.asarray((self.boxes - np.tile(self.place.offset, 2)) / np.tile(self.place.scale, 2))


def examine(reference: Reference, item: bytes) -> Examined:
    """Return the answer to an encoded picture or a UTF-8 text, and its raw values.

    Raises:
        CommandError: as `Reference.read`.

    """
    outputs, place = reference.run(item)
    with np.errstate(over="ignore", invalid="ignore"):  # a misread head overflows, which the judgement then sees
        found = reference.read(outputs, place)
        if not isinstance(reference.spec, ObjectDetection) or place is None:
            return Examined(found, outputs["logits"].astype(np.float64), place=place)
        boxes = answers.uncut(outputs, reference.spec.postprocess, place)
    return Examined(found, boxes=np.nan_to_num(boxes, nan=LIMIT).clip(-LIMIT, LIMIT), place=place)
