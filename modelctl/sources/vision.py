"""An ONNX network for pictures -> a draft of a classifier or a detector.

input, outputs, options --preprocess--> sample pictures --network--> outputs --> classes, sizes, activation -> spec
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from modelctl.errors import CommandError
from modelctl.graphs import networks, surgery
from modelctl.graphs.networks import Arrays, Port
from modelctl.models.steps import ImagePreprocess
from modelctl.reference.pictures import prepare
from modelctl.reference.samples import SAMPLES
from modelctl.sources import missing, pictures
from modelctl.sources.draft import (
    BOXES,
    TEXTS,
    Draft,
    Order,
    activation_of,
    batch_note,
    labels_for,
    picture_labels,
    refuse_idle,
    spec_of,
    store,
)

DECODERS = ("yolov5", "yolov8", "yolox", "detr", "end_to_end")
IDLE = {
    "yolox": (),
    "detr": ("encoded", "strides", "iou_threshold"),
    "end_to_end": ("encoded", "strides", "iou_threshold", "activation"),
}
"""Options without effect, by decoder; for a decoder that is not listed, the options of YOLOX alone."""
SAMPLE_PICTURES = ("coffee.jpg", "astronaut.jpg")
MAX_ENCODED_OFFSET = 32
"""Undecoded YOLOX centres lie within a few cells of their own cell; decoded ones reach hundreds of pixels."""


def classifier(
    order: Order, model: onnx.ModelProto, inputs: list[Port], outputs: list[Port], known: dict[str, Any]
) -> Draft:
    """Return the draft of a picture classifier.

    Raises:
        CommandError: when the inputs or outputs do not fit, or an option is missing or has no effect.

    """
    refuse_idle(order, (*BOXES, *TEXTS), "a classifier of pictures")
    given = _one_picture(inputs)
    if len(outputs) != 1 or len(outputs[0].shape) not in (2, 4) or any(size != 1 for size in outputs[0].shape[2:]):
        shapes = ", ".join(f"{port.name} {list(port.shape)}" for port in outputs)
        raise CommandError(
            f"A classifier has one output [batch, classes], this network has {shapes}: give another --task."
        )
    missing.require_of_pictures(order, given, known, missing.of_classifier(order, model, outputs[0], known))
    if len(outputs[0].shape) == 4:
        surgery.flatten(model, outputs[0].name)
    how = pictures.preprocess(given, order.options, known)
    trial = _try_out(order, model, given, how)
    made = np.concatenate([one[outputs[0].name] for one in trial.made])
    classes = made.shape[-1]
    spec = spec_of(
        order,
        task="image-classification",
        preprocess=how,
        network={
            "inputs": {"image": {"name": given.name, "dtype": given.dtype}},
            "outputs": {"logits": _tensor(outputs[0], trial)},
            "batching": {"max_batch_size": trial.batch},
        },
        postprocess={"activation": activation_of(order, made), "top_k": min(5, classes)},
    )
    labels, notes = picture_labels(order, classes, known.get("labels", []))
    return Draft(spec, trial.path, labels, notes=notes + batch_note(trial.batch))


def detector(
    order: Order, model: onnx.ModelProto, inputs: list[Port], outputs: list[Port], known: dict[str, Any]
) -> Draft:
    """Return the draft of an object detector.

    Raises:
        CommandError: as `classifier`, or when the decoder is unknown.

    """
    refuse_idle(order, TEXTS, "a detector")
    given = _one_picture(inputs)
    decoder = order.options.decoder or known.get("decoder") or ("detr" if len(outputs) == 2 else None)
    lacks = missing.of_labels(order, known)
    if decoder is None:
        lacks.add("does not name its head's family", f"--decoder, one of {', '.join(DECODERS)}")
    missing.require_of_pictures(order, given, known, lacks)
    assert decoder is not None  # noqa: S101 - refused above
    refuse_idle(order, IDLE.get(decoder, ("encoded", "strides")), f"the decoder {decoder}")
    roles = _head_roles(decoder, outputs)
    how = pictures.preprocess(given, order.options, known)
    pictures.say_odd_size(order.options)
    trial = _try_out(order, model, given, how)
    heads = {role: trial.made[0][port.name] for role, port in roles.items()}
    classes = _detector_classes(decoder, heads, order.options.activation)
    labels = labels_for(order, classes, known.get("labels", []))
    post = {
        "decoder": decoder,
        "activation": order.options.activation,
        "encoded": _is_encoded(order, decoder, heads),
        "strides": order.options.strides,
        "box_unit": order.options.box_unit,
    }
    thresholds = ("score_threshold", "iou_threshold", "max_detections")
    post |= known.get("thresholds", {})
    post |= {name: value for name in thresholds if (value := getattr(order.options, name)) is not None}
    spec = spec_of(
        order,
        task="object-detection",
        preprocess=how,
        network={
            "inputs": {"image": {"name": given.name, "dtype": given.dtype}},
            "outputs": {role: _tensor(port, trial) for role, port in roles.items()},
            "batching": {"max_batch_size": trial.batch},
        },
        postprocess={name: value for name, value in post.items() if value is not None},
    )
    return Draft(spec, trial.path, labels, notes=batch_note(trial.batch))


def _head_roles(decoder: str, outputs: list[Port]) -> dict[str, Port]:
    if decoder != "detr":
        if len(outputs) != 1 or len(outputs[0].shape) != 3:
            shapes = ", ".join(f"{port.name} {list(port.shape)}" for port in outputs)
            raise CommandError(f"The decoder {decoder} reads one output with three axes, this network has {shapes}.")
        return {"head": outputs[0]}
    boxes = [port for port in outputs if len(port.shape) == 3 and port.shape[-1] == 4]
    logits = [port for port in outputs if len(port.shape) == 3 and port not in boxes[-1:]]
    if len(outputs) != 2 or not boxes or len(logits) != 1:
        raise CommandError(
            "The decoder detr reads two outputs: logits [batch, queries, classes] and boxes [batch, queries, 4]."
        )
    return {"logits": logits[0], "boxes": boxes[-1]}


def _detector_classes(decoder: str, heads: Arrays, activation: str | None) -> int | None:
    if decoder == "end_to_end":
        return None
    if decoder == "detr":
        return heads["logits"].shape[-1] - ((activation or "softmax") == "softmax")
    shape = heads["head"].shape
    classes = shape[1] - 4 if decoder == "yolov8" else shape[2] - 5
    if classes < 1:
        raise CommandError(f"An output of shape {list(shape)} has no room for classes: is the decoder {decoder} right?")
    return classes


def _is_encoded(order: Order, decoder: str, heads: Arrays) -> bool:
    """Tell whether a YOLOX head is undecoded."""
    if decoder != "yolox":
        return False
    if order.options.encoded is not None:
        return bool(order.options.encoded)
    return float(np.abs(heads["head"][0, :, :2]).max()) < MAX_ENCODED_OFFSET


def _one_picture(inputs: list[Port]) -> Port:
    if len(inputs) != 1:
        has = ", ".join(port.name for port in inputs)
        raise CommandError(f"A network for pictures has one input, this one has {len(inputs)}: {has}.")
    if inputs[0].dtype not in ("FP32", "FP16", "UINT8"):
        raise CommandError(f"The input '{inputs[0].name}' is {inputs[0].dtype}; pictures come as FP32, FP16 or UINT8.")
    return inputs[0]


@dataclass(frozen=True)
class Trial:
    """A stored network and how it ran.

    Attributes:
        path: the ONNX file.
        made: the outputs for each of two sample pictures, by name.
        batch: the maximum batch size; 1 when a batch gave other answers than single pictures.

    """

    path: Path
    made: tuple[Arrays, Arrays]
    batch: int


def _try_out(order: Order, model: onnx.ModelProto, given: Port, how: ImagePreprocess) -> Trial:
    """Free the batch, store the network, and run two sample pictures one by one and as a batch."""
    surgery.free_batch(model)
    if how.width and how.height:
        rows, columns = (2, 3) if how.layout == "NCHW" else (1, 2)
        surgery.fix_sizes(model, given.name, {rows: how.height, columns: how.width})
    path = order.work / "model.onnx"
    store(model, path)
    session = networks.session(path)
    one, other = (prepare((SAMPLES / name).read_bytes(), how, given.dtype)[0] for name in SAMPLE_PICTURES)
    pair = np.concatenate([one, other if one.shape == other.shape else one[:, ::-1, ::-1]])
    fits = networks.batches(session, {given.name: pair})
    made = networks.run(session, {given.name: one}), networks.run(session, {given.name: other})
    return Trial(path, made, order.options.max_batch_size if fits else 1)


def _tensor(port: Port, trial: Trial) -> dict[str, Any]:
    """Return an output's part of the spec; an axis is -1 when it is empty or differs between the sample pictures."""
    pairs = zip(*(made[port.name].shape[1:] for made in trial.made), strict=True)
    return {"name": port.name, "dtype": port.dtype, "dims": [a if a == b > 0 else -1 for a, b in pairs]}
