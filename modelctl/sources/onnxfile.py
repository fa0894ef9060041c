"""An ONNX file of anybody's -> a draft: tasks and shapes are read from the graph, the rest is asked for by option.

load -> roles of inputs and outputs -> free batch (does it hold?) -> activation (are these probabilities?) -> spec
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from modelctl.errors import CommandError
from modelctl.graphs import networks, surgery
from modelctl.graphs.networks import Arrays, Port
from modelctl.models.steps import ImagePreprocess
from modelctl.reference.model import onnx_run
from modelctl.reference.pictures import prepare
from modelctl.reference.samples import SAMPLES
from modelctl.sources import pictures, texts
from modelctl.sources.draft import (
    BOXES,
    PICTURES,
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
"""Options that do nothing for a decoder; for all others, those of YOLOX alone."""
THRESHOLDS = {"score_threshold": 0.25, "iou_threshold": 0.7, "max_detections": 300}
"""Of Ultralytics' own `predict`."""
SHOWN = ("coffee.jpg", "astronaut.jpg")
ANY_SIZE = 8
"""Of an axis of a tensor model that may have any size."""


def draft(order: Order) -> Draft:
    """Read the file and everything that it says of itself.

    Raises:
        CommandError: one sentence, when it cannot be served or an option is missing.

    """
    path = Path(order.source)
    if not path.is_file():
        raise CommandError(f"There is no file {path}: give the path of one.")
    refuse_idle(order, ["shape"], "an ONNX file, which holds its shapes")
    return from_file(order, path, ultralytics(networks.load(path)))


def from_file(order: Order, path: Path, known: dict[str, Any]) -> Draft:
    """Return the draft of an ONNX file; `known` is what is known of it beside the graph (see `ultralytics`)."""
    model = networks.load(path)
    inputs, outputs = networks.ports(model)
    _require_batch(inputs)
    task = order.options.task or known.get("task") or _task(inputs, outputs)
    make = {"image-classification": _classifier, "object-detection": _detector, "text-classification": texts.from_graph}
    make_draft: Callable[..., Draft] = make.get(task, _tensors)
    made = make_draft(order, model, inputs, outputs, known)
    made.notes += known.get("notes", [])
    if task != "none":
        made.original = _original(path, made.spec)
    return made


def _require_batch(inputs: list[Port]) -> None:
    """Raise CommandError when the network takes no batch, or always several items."""
    for port in inputs:
        if not port.shape:
            raise CommandError(f"The input '{port.name}' has no batch as its first axis: export it with one.")
        if (port.shape[0] or 1) > 1:
            raise CommandError(
                f"The input '{port.name}' takes {port.shape[0]} items, no more and no fewer: "
                "export it with a dynamic batch, or with a batch of 1."
            )


def _original(path: Path, spec: Any) -> Callable[[Arrays], Arrays] | None:
    """Return the file as it was given, run item by item: what the stored network is compared with."""
    whole = onnx_run(path, spec)

    def run(inputs: Arrays) -> Arrays:
        made = whole(inputs)
        return {
            role: array.reshape(len(array), -1) if role == "logits" and array.ndim == 4 else array
            for role, array in made.items()
        }

    return run


def _task(inputs: list[Port], outputs: list[Port]) -> str:
    names = {port.name for port in inputs}
    if "input_ids" in names:
        return "text-classification"
    if len(inputs) == 1 and len(inputs[0].shape) == 4 and 3 in (inputs[0].shape[1], inputs[0].shape[3]):
        ranks = [len(port.shape) for port in outputs]
        if ranks == [2] or (ranks == [4] and outputs[0].shape[2:] == (1, 1)):
            return "image-classification"
        if ranks in ([3], [3, 3]):
            return "object-detection"
    return "none"


def _classifier(
    order: Order, model: onnx.ModelProto, inputs: list[Port], outputs: list[Port], known: dict[str, Any]
) -> Draft:
    refuse_idle(order, (*BOXES, *TEXTS), "a classifier of pictures")
    given = _one_picture(inputs)
    if len(outputs) != 1 or len(outputs[0].shape) not in (2, 4) or any(size != 1 for size in outputs[0].shape[2:]):
        shapes = ", ".join(f"{port.name} {list(port.shape)}" for port in outputs)
        raise CommandError(
            f"A classifier has one output [batch, classes], this network has {shapes}: give another --task."
        )
    if len(outputs[0].shape) == 4:
        surgery.flatten(model, outputs[0].name)
    how = pictures.preprocess(given, order.options, known)
    settled = _settle(order, model, given, how)
    made = np.concatenate([one[outputs[0].name] for one in settled.made])
    classes = made.shape[-1]
    spec = spec_of(
        order,
        task="image-classification",
        preprocess=how,
        network={
            "inputs": {"image": {"name": given.name, "dtype": given.dtype}},
            "outputs": {"logits": _tensor(outputs[0], settled)},
            "batching": {"max_batch_size": settled.batch},
        },
        postprocess={"activation": activation_of(order, made), "top_k": min(5, classes)},
    )
    labels, notes = picture_labels(order, classes, known.get("labels", []))
    return Draft(spec, settled.path, labels, notes=notes + batch_note(settled.batch))


def _detector(
    order: Order, model: onnx.ModelProto, inputs: list[Port], outputs: list[Port], known: dict[str, Any]
) -> Draft:
    refuse_idle(order, TEXTS, "a detector")
    given = _one_picture(inputs)
    decoder = order.options.decoder or known.get("decoder") or ("detr" if len(outputs) == 2 else None)
    if decoder is None:
        raise CommandError(f"The file does not name its head's family: give --decoder, one of {', '.join(DECODERS)}.")
    refuse_idle(order, IDLE.get(decoder, ("encoded", "strides")), f"the decoder {decoder}")
    roles = _head_roles(decoder, outputs)
    how = pictures.preprocess(given, order.options, known)
    settled = _settle(order, model, given, how)
    heads = {role: settled.made[0][port.name] for role, port in roles.items()}
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
            "outputs": {role: _tensor(port, settled) for role, port in roles.items()},
            "batching": {"max_batch_size": settled.batch},
        },
        postprocess={name: value for name, value in post.items() if value is not None},
    )
    return Draft(spec, settled.path, labels, notes=batch_note(settled.batch))


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
    """Tell whether a YOLOX head is undecoded: its boxes are then a few cells large, and not hundreds of pixels."""
    if decoder != "yolox":
        return False
    if order.options.encoded is not None:
        return bool(order.options.encoded)
    return float(np.abs(heads["head"][0, :, :2]).max()) < 32


def _tensors(
    order: Order, model: onnx.ModelProto, inputs: list[Port], outputs: list[Port], known: dict[str, Any]
) -> Draft:
    """Return the draft of a network that is served by its tensors: no task is known for it."""
    # TorchScript was traced with the size and the layout.
    others = [name for name in PICTURES if name not in ("size", "layout")]
    idle = (*others, *BOXES, *TEXTS, "labels", "activation")
    refuse_idle(order, idle, "a network that is served by its tensors, as no task is known for it (--task names one)")
    for port in (*inputs, *outputs):
        if len(port.shape) < 2:
            raise CommandError(
                f"'{port.name}' of shape {list(port.shape)} has no batch before its sizes, which serving here needs: "
                "export it with one."
            )
    surgery.free_batch(model)
    path = order.work / "model.onnx"
    store(model, path)
    session = networks.session(path)
    batch = order.options.max_batch_size if networks.batches(session, _numbers(inputs)) else 1
    network = {
        kind: {
            port.name: {"name": port.name, "dtype": port.dtype, "dims": [size or -1 for size in port.shape[1:]]}
            for port in ports
        }
        for kind, ports in (("inputs", inputs), ("outputs", outputs))
    }
    spec = spec_of(order, task="none", network={**network, "batching": {"max_batch_size": batch}})
    return Draft(
        spec, path, [], notes=["No task is known for this network: it is served by its tensors.", *batch_note(batch)]
    )


def _numbers(inputs: list[Port]) -> Arrays:
    """Return two different items of chance: small whole numbers, since they may be indices, or 0 to 1."""
    source = np.random.default_rng(0)
    made = {}
    for port in inputs:
        shape = (2, *(size or ANY_SIZE for size in port.shape[1:]))
        values = source.random(shape) if port.dtype.startswith("FP") else source.integers(0, 2, shape)
        made[port.name] = values.astype(networks.NUMPY[port.dtype])
    return made


def _one_picture(inputs: list[Port]) -> Port:
    if len(inputs) != 1:
        has = ", ".join(port.name for port in inputs)
        raise CommandError(f"A network for pictures has one input, this one has {len(inputs)}: {has}.")
    if inputs[0].dtype not in ("FP32", "FP16", "UINT8"):
        raise CommandError(f"The input '{inputs[0].name}' is {inputs[0].dtype}; pictures come as FP32, FP16 or UINT8.")
    return inputs[0]


@dataclass(frozen=True)
class Settled:
    """A stored network for pictures: what it makes of two, by the outputs' names, and how many it takes at once."""

    path: Path
    made: tuple[Arrays, Arrays]
    batch: int


def _settle(order: Order, model: onnx.ModelProto, given: Port, how: ImagePreprocess) -> Settled:
    """Free the batch, store the network, and see what it makes of two pictures, one by one and together."""
    surgery.free_batch(model)
    if how.width and how.height:
        rows, columns = (2, 3) if how.layout == "NCHW" else (1, 2)
        surgery.fix_sizes(model, given.name, {rows: how.height, columns: how.width})
    path = order.work / "model.onnx"
    store(model, path)
    session = networks.session(path)
    one, other = (prepare((SAMPLES / name).read_bytes(), how, given.dtype)[0] for name in SHOWN)
    pair = np.concatenate([one, other if one.shape == other.shape else one[:, ::-1, ::-1]])
    fits = networks.batches(session, {given.name: pair})
    made = networks.run(session, {given.name: one}), networks.run(session, {given.name: other})
    return Settled(path, made, order.options.max_batch_size if fits else 1)


def _tensor(port: Port, settled: Settled) -> dict[str, Any]:
    """Return an output's part of the spec; what depends on the picture, or may be nothing, has no fixed size."""
    pairs = zip(*(made[port.name].shape[1:] for made in settled.made), strict=True)
    return {"name": port.name, "dtype": port.dtype, "dims": [a if a == b > 0 else -1 for a, b in pairs]}


def _written(said: dict[str, str]) -> dict[str, Any]:
    """Return the classes and, for a network of any size, the size that it was trained for."""
    try:
        names, size = ast.literal_eval(said["names"]), ast.literal_eval(said.get("imgsz", "None"))
        labels = [str(names[index]) for index in range(len(names))]
    except (ValueError, SyntaxError, TypeError, LookupError, MemoryError, RecursionError) as error:
        raise CommandError(
            f"What Ultralytics has written into the file cannot be read ({str(error)[:100]}): export it again."
        ) from error
    is_size = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    return {"labels": labels, **({"size": size} if is_size else {})}


def ultralytics(model: onnx.ModelProto) -> dict[str, Any]:
    """Return what Ultralytics' exporter writes beside a graph: classes, task, whether NMS is inside."""
    said = {entry.key: entry.value for entry in model.metadata_props}
    if "names" not in said or "Ultralytics" not in said.get("author", ""):
        return {}
    if said.get("task") != "detect":
        raise CommandError(
            f"This is an Ultralytics network for '{said.get('task')}': only 'detect' can be served here."
        )
    _, outputs = networks.ports(model)
    inside = len(outputs) == 1 and len(outputs[0].shape) == 3 and outputs[0].shape[-1] == 6
    return {
        "task": "object-detection",
        **_written(said),
        "decoder": "end_to_end" if inside else "yolov8",
        "thresholds": {"max_detections": 300} if inside else THRESHOLDS,
        "resize": "letterbox_center",
        "scale": 1 / 255,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "notes": ["Exported by Ultralytics: its licence is AGPL-3.0 unless yours says otherwise."],
    }
