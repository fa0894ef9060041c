"""How one detector writes its head: the parameters that the decoders read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """One detector's head, as the parameters of its postprocess step describe it.

    Attributes:
        decoder: the family, one of `stages.decoders.FAMILIES`.
        inputs: the head's tensors, in the config's order.
        width: of the network's input, in pixels (parameter `width`); 0 when every picture has its own.
        height: of the network's input, in pixels (parameter `height`).
        activation: turns the head's scores into probabilities (parameter `activation`, one of `scores.ACTIVATIONS`).
            `none` when the network applies it itself. Default `softmax` for detr, `none` for all others.
        normalized: whether boxes are in 0..1 of the input (parameter `box_unit`: `pixels` or `normalized`). Default
            `normalized` for detr and rtdetr, `pixels` for all others.
        encoded: yolox only: whether boxes are relative to their grid cell (parameter `encoded`: `true` or `false`, the
            default).
        strides: of encoded yolox, nanodet, nanodet_plus and yolofastestv2: pixels of a grid cell, level by level
            (parameter `strides`, default by family).
        box_format: of families that have several: `corners`, `centre` or `yxyx` (parameter `box_format`).
        columns: end_to_end only: what the columns of a row hold (parameter `columns`, default `box,score,class`).
        background: scored_boxes only: whether the first score is that of no object (parameter `background`).
        first_class: the class id that the network gives to the first label (parameter `first_class`, default 0).
        bins: nanodet only: bins of each side's distribution (parameter `bins`, default 8).
        anchors: yolofastestv2 only: width and height in pixels of each anchor, level by level (parameter `anchors`).
        nms: whether overlapping boxes are suppressed (parameter `nms`); None: as the family needs.

    """

    decoder: str
    inputs: tuple[str, ...]
    width: int
    height: int
    activation: str = "none"
    normalized: bool = False
    encoded: bool = False
    strides: tuple[int, ...] = (8, 16, 32)
    box_format: str = "corners"
    columns: tuple[str, ...] = ("box", "score", "class")
    background: bool = False
    first_class: int = 0
    bins: int = 8
    anchors: tuple[float, ...] = ()
    nms: bool | None = None
