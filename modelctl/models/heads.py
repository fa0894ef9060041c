"""The families of detectors' heads that a `model.yaml` can name, and the parts that their tensors play."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

DecoderName = Literal[
    "yolov5",
    "yolov8",
    "yolox",
    "detr",
    "rtdetr",
    "end_to_end",
    "detections",
    "scored_boxes",
    "nanodet",
    "nanodet_plus",
    "fastestdet",
    "yolofastestv2",
]
DECODERS: tuple[DecoderName, ...] = get_args(DecoderName)


@dataclass(frozen=True)
class HeadKind:
    """One family.

    Attributes:
        roles: the outputs that it reads.
        optional: outputs that may be absent.
        suppressed: whether the network leaves no overlapping boxes of one object, so that NMS is not needed.
        unit: of the boxes, where a spec names none.

    """

    roles: tuple[str, ...] = ("head",)
    optional: tuple[str, ...] = ()
    suppressed: bool = False
    unit: Literal["pixels", "normalized"] = "pixels"

    @property
    def outputs(self) -> set[frozenset[str]]:
        """The sets of outputs that it can read."""
        return {frozenset(self.roles), frozenset((*self.roles, *self.optional))}


HEADS: Mapping[str, HeadKind] = {
    **{name: HeadKind() for name in DECODERS},
    "detr": HeadKind(("logits", "boxes"), suppressed=True, unit="normalized"),
    "rtdetr": HeadKind(suppressed=True, unit="normalized"),
    "end_to_end": HeadKind(suppressed=True),
    "detections": HeadKind(("boxes", "scores", "classes"), ("count",), suppressed=True),
    "scored_boxes": HeadKind(("boxes", "scores")),
}


def suppresses(decoder: str, asked: bool | None) -> bool:
    """Tell whether the step after the network suppresses overlapping boxes; `asked` is the spec's `nms`."""
    return not HEADS[decoder].suppressed if asked is None else asked
