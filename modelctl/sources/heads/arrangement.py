"""What a detector's graph needs before it is tried: inputs that are no pictures become constants, outputs get a batch.

The numbers stay the same. Only shapes and names are known here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from modelctl.errors import CommandError
from modelctl.graphs import axes, heads, networks
from modelctl.graphs.networks import Port

SIZES = ("orig_target_sizes", "im_shape", "scale_factor", "image_shape")
"""Second inputs of detectors: the sizes to which boxes are scaled (RT-DETR, D-FINE; PaddleDetection)."""
PAIRS = (
    *(("dets", "labels"), ("logits", "pred_boxes"), ("pred_logits", "pred_boxes")),
    ("detection_boxes", "detection_scores", "detection_classes", "num_detections"),
)
"""Outputs that are a head, beside which there may be masks, points, inner states, or the boxes before NMS."""
MASK = "pixel_mask"
"""Second input of DETR's exports for Transformers.js: 1 where the picture is no padding, which is everywhere."""
ROWS = ("end_to_end", "yolofastestv2")
"""Decoders of rows without a batch axis, which look like a classifier's output."""
HEAD_NAMES = ("det_boxes", "num_dets", "detection_boxes", "detection_scores", "tflite_detection")


def feed_sizes(path: Path, work: Path, size: tuple[int, int] | None) -> Path:
    """Return the file, or a copy of it whose inputs of sizes are constants, so that boxes are in the input's pixels.

    Args:
        path: the file.
        work: the folder for the copy.
        size: height and width of the network's input that the user gave.

    Raises:
        CommandError: when the picture's size is free and was not given, or when such an input is of an unknown shape.

    """
    model = networks.load(path)
    inputs, _ = networks.ports(model)
    sized = [port for port in inputs if port.name in SIZES]
    if not sized or len(sized) == len(inputs):
        return path
    height, width = _picture_size(inputs, size)
    for port in sized:
        heads.feed(model, port.name, [_value(port.name, height, width)])
    copy = work / "with_sizes.onnx"
    networks.save(model, copy)
    return copy


def feed_mask(path: Path, work: Path) -> Path:
    """Return the file, or a copy of it that makes its mask of padding itself: ones for each picture."""
    model = networks.load(path)
    inputs, _ = networks.ports(model)
    picture = next((port.name for port in inputs if len(port.shape) == 4), None)
    if picture is None or not any(port.name == MASK and len(port.shape) == 3 for port in inputs):
        return path
    heads.feed_ones(model, MASK, picture)
    copy = work / "with_mask.onnx"
    networks.save(model, copy)
    return copy


def _value(name: str, height: int, width: int) -> list[Any]:
    if name == "scale_factor":
        return [1, 1]
    return [width, height] if name == "orig_target_sizes" else [height, width]


def _picture_size(inputs: list[Port], size: tuple[int, int] | None) -> tuple[int, int]:
    picture = next((port for port in inputs if len(port.shape) == 4), None)
    if picture is not None:
        height, width = picture.shape[2:] if picture.shape[1] in (1, 3) else picture.shape[1:3]
        if height and width:
            return height, width
    if size is None:
        names = ", ".join(port.name for port in inputs if port.name in SIZES)
        raise CommandError(
            f"The network also takes {names}, which becomes the size of its pictures: give --size HEIGHT,WIDTH, or "
            "export it without."
        )
    return size


def give_batch(model: onnx.ModelProto) -> bool:
    """Give outputs without a batch axis one; tell whether the head had none.

    A head without one holds one picture's boxes: its batch is 1. In a head that has one, a count of shape [batch] gets
    a second axis, because Triton serves no tensor without one.
    """
    _, outputs = networks.ports(model)
    ranks = [len(port.shape) for port in outputs]
    unbatched = max(ranks, default=0) <= 2
    for port in outputs:
        if unbatched:
            axes.insert(model, port.name, 0)
        elif len(port.shape) == 1:
            axes.insert(model, port.name, 1)
    return unbatched


def is_detector(model: onnx.ModelProto, outputs: list[Port], batch: int, *, hinted: bool, decoder: str | None) -> bool:
    """Tell whether the outputs of a network for pictures are a detector's, as far as the graph tells.

    Args:
        model: the network.
        outputs: its outputs.
        batch: the number of pictures that the file fixes; 1 where it fixes none.
        hinted: whether the user gave labels or options for boxes: what is no classifier's is a detector's then.
        decoder: the family that the user named.

    """
    ranks = [len(port.shape) for port in outputs]
    names = [port.name.lower() for port in outputs]
    if decoder in ROWS or (hinted and not may_be_classes(outputs, batch)):
        return True
    if ranks in ([3], [3, 3]) or heads.suppresses(model):
        return True
    if any(name.startswith(HEAD_NAMES) for name in names):
        return True
    if any(set(pair) <= set(names) for pair in (*PAIRS, ("boxes", "scores", "labels"))):
        return True
    return "batchno_classid_score" in names[0]


def may_be_classes(outputs: list[Port], batch: int) -> bool:
    """Tell whether outputs are a classifier's: one of shape [batch, classes] or [batch, classes, 1, 1]."""
    shapes = [port.shape for port in outputs]
    if [len(shape) for shape in shapes] == [2]:
        return (shapes[0][0] or 1) in (1, batch)  # several rows for one picture are no batch
    return [len(shape) for shape in shapes] == [4] and shapes[0][2:] == (1, 1)
