"""An ONNX file of anybody's -> a draft: tasks and shapes are read from the graph, the rest is asked for by option.

load -> roles of inputs and outputs -> free batch (does it hold?) -> activation (are these probabilities?) -> spec
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from modelctl import graphs, trim
from modelctl.errors import CommandError
from modelctl.graphs import Arrays, Port
from modelctl.reference.model import onnx_run
from modelctl.reference.pictures import prepare
from modelctl.sources import pictures
from modelctl.sources.draft import Draft, Order, labels_of
from modelctl.spec import ADAPTER, ImagePreprocess, ModelSpec

TASKS = ("image-classification", "object-detection", "text-classification", "none")
DECODERS = ("yolov5", "yolov8", "yolox", "detr", "end_to_end")
TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SAMPLES = Path(__file__).parent.parent / "samples"
DEFAULT_LENGTH = 512


def draft(order: Order) -> Draft:
    """Read the file and everything that it says of itself.

    Raises:
        CommandError: one sentence, when it cannot be served or an option is missing.

    """
    path = Path(order.source)
    if not path.is_file():
        raise CommandError(f"There is no file {path}.")
    return from_file(order, path, ultralytics(graphs.load(path)))


def from_file(order: Order, path: Path, known: dict[str, Any]) -> Draft:
    """Return the draft of an ONNX file; `known` is what is known of it beside the graph (see `ultralytics`)."""
    model = graphs.load(path)
    inputs, outputs = graphs.ports(model)
    task = order.options.task or known.get("task") or _task(inputs, outputs)
    make = {"image-classification": _classifier, "object-detection": _detector, "text-classification": _text}
    make_draft: Callable[..., Draft] = make.get(task, _tensors)
    made = make_draft(order, model, inputs, outputs, known)
    made.notes += known.get("notes", [])
    if task != "none":
        made.original = _original(path, made.spec)
    return made


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
    given = _one_picture(inputs)
    if len(outputs) != 1 or len(outputs[0].shape) not in (2, 4) or any(size != 1 for size in outputs[0].shape[2:]):
        shapes = ", ".join(f"{port.name} {list(port.shape)}" for port in outputs)
        raise CommandError(
            f"A classifier has one output [batch, classes], this network has {shapes}: give another --task."
        )
    if len(outputs[0].shape) == 4:
        graphs.flatten(model, outputs[0].name)
    how = pictures.preprocess(given, order.options, known)
    path, sample, batch = _settle(order, model, given, how)
    made = graphs.run(graphs.session(path), {given.name: sample[:1]})[outputs[0].name]
    classes = made.shape[-1]
    spec = _spec(
        order,
        task="image-classification",
        preprocess=how,
        network={
            "inputs": {"image": {"name": given.name, "dtype": given.dtype}},
            "outputs": {"logits": _tensor(outputs[0], made)},
            "batching": {"max_batch_size": batch},
        },
        postprocess={"activation": _activation(order, made), "top_k": min(5, classes)},
    )
    return Draft(spec, path, _labels(order, classes, known), notes=_batch_note(batch))


def _detector(
    order: Order, model: onnx.ModelProto, inputs: list[Port], outputs: list[Port], known: dict[str, Any]
) -> Draft:
    given = _one_picture(inputs)
    decoder = order.options.decoder or known.get("decoder") or ("detr" if len(outputs) == 2 else None)
    if decoder is None:
        raise CommandError(f"The file does not name its head's family: give --decoder, one of {', '.join(DECODERS)}.")
    roles = _head_roles(decoder, outputs)
    how = pictures.preprocess(given, order.options, known)
    path, sample, batch = _settle(order, model, given, how)
    made = graphs.run(graphs.session(path), {given.name: sample[:1]})
    heads = {role: made[port.name] for role, port in roles.items()}
    classes = _detector_classes(decoder, heads, order.options.activation)
    labels = _labels(order, classes, known)
    post = {
        "decoder": decoder,
        "activation": order.options.activation,
        "encoded": _is_encoded(order, decoder, heads),
        "strides": order.options.strides,
        "box_unit": order.options.box_unit,
    }
    thresholds = ("score_threshold", "iou_threshold", "max_detections")
    post |= {name: value for name in thresholds if (value := getattr(order.options, name)) is not None}
    spec = _spec(
        order,
        task="object-detection",
        preprocess=how,
        network={
            "inputs": {"image": {"name": given.name, "dtype": given.dtype}},
            "outputs": {role: _tensor(port, made[port.name]) for role, port in roles.items()},
            "batching": {"max_batch_size": batch},
        },
        postprocess={name: value for name, value in post.items() if value is not None},
    )
    return Draft(spec, path, labels, notes=_batch_note(batch))


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


def _text(
    order: Order, model: onnx.ModelProto, inputs: list[Port], outputs: list[Port], known: dict[str, Any]
) -> Draft:
    unknown = [port.name for port in inputs if port.name not in TEXT_INPUTS]
    if unknown or "input_ids" not in {port.name for port in inputs}:
        has = ", ".join(port.name for port in inputs)
        raise CommandError(f"A text network takes {', '.join(TEXT_INPUTS)}; this one takes {has}.")
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise CommandError("A text classifier has one output [batch, classes]: give another --task.")
    if order.options.tokenizer is None:
        raise CommandError("A text network needs its tokenizer: give --tokenizer tokenizer.json.")
    length = inputs[0].shape[1] or order.options.max_length or DEFAULT_LENGTH
    return text_draft(order, model, inputs, outputs[0], length, order.options.tokenizer, known)


def text_draft(
    order: Order,
    model: onnx.ModelProto,
    inputs: list[Port],
    output: Port,
    length: int,
    tokenizer: Path,
    known: dict[str, Any],
) -> Draft:
    """Return the draft of a text network; one of free length is made to cut its own padding (`modelctl.trim`)."""
    if order.options.max_length and order.options.max_length > length:
        raise CommandError(f"The network reads {length} tokens at most, --max-length is {order.options.max_length}.")
    is_free = all(port.shape[1] is None for port in inputs)
    length = min(length, order.options.max_length or length) if is_free else length
    graphs.free_batch(model)
    notes = []
    if is_free and "attention_mask" in {port.name for port in inputs}:
        model = trim.trim_to_longest(model)
        notes.append("The network cuts its own padding, so texts of every length share a batch.")
    path = order.work / "model.onnx"
    onnx.save(model, str(path))
    tokens = {port.name: np.ones((2, length), graphs.NUMPY[port.dtype]) for port in inputs}
    session = graphs.session(path)
    made = graphs.run(session, {name: array[:1] for name, array in tokens.items()})[output.name]
    batch = order.options.max_batch_size if graphs.batches(session, tokens) else 1
    spec = _spec(
        order,
        task="text-classification",
        preprocess={"max_length": length, "pad_id": known.get("pad_id", 0)},
        network={
            "inputs": {port.name: {"name": port.name, "dtype": port.dtype} for port in inputs},
            "outputs": {"logits": _tensor(output, made)},
            "batching": {"max_batch_size": batch},
        },
        postprocess={"activation": known.get("activation") or _activation(order, made)},
    )
    return Draft(
        spec, path, _labels(order, made.shape[-1], known), tokenizer=tokenizer, notes=notes + _batch_note(batch)
    )


def _tensors(
    order: Order, model: onnx.ModelProto, inputs: list[Port], outputs: list[Port], known: dict[str, Any]
) -> Draft:
    """Return the draft of a network that is served by its tensors: no task is known for it."""
    for port in (*inputs, *outputs):
        if len(port.shape) < 2:
            raise CommandError(
                f"'{port.name}' of shape {list(port.shape)} has no batch before its sizes, which serving here needs."
            )
    graphs.free_batch(model)
    path = order.work / "model.onnx"
    onnx.save(model, str(path))
    session = graphs.session(path)
    sample = {
        port.name: np.ones((2, *(size or 8 for size in port.shape[1:])), graphs.NUMPY[port.dtype]) for port in inputs
    }
    batch = order.options.max_batch_size if graphs.batches(session, sample) else 1
    network = {
        kind: {
            port.name: {"name": port.name, "dtype": port.dtype, "dims": [size or -1 for size in port.shape[1:]]}
            for port in ports
        }
        for kind, ports in (("inputs", inputs), ("outputs", outputs))
    }
    spec = _spec(order, task="none", network={**network, "batching": {"max_batch_size": batch}})
    return Draft(
        spec, path, [], notes=["No task is known for this network: it is served by its tensors.", *_batch_note(batch)]
    )


def _one_picture(inputs: list[Port]) -> Port:
    if len(inputs) != 1:
        has = ", ".join(port.name for port in inputs)
        raise CommandError(f"A network for pictures has one input, this one has {len(inputs)}: {has}.")
    if inputs[0].dtype not in ("FP32", "FP16", "UINT8"):
        raise CommandError(f"The input '{inputs[0].name}' is {inputs[0].dtype}; pictures come as FP32, FP16 or UINT8.")
    return inputs[0]


def _settle(order: Order, model: onnx.ModelProto, given: Port, how: ImagePreprocess) -> tuple[Path, Any, int]:
    """Free the batch and store the network; return its file, two prepared pictures, and the largest batch."""
    graphs.free_batch(model)
    if how.width and how.height:
        rows, columns = (2, 3) if how.layout == "NCHW" else (1, 2)
        graphs.fix_sizes(model, given.name, {rows: how.height, columns: how.width})
    path = order.work / "model.onnx"
    onnx.save(model, str(path))
    found = [prepare((SAMPLES / name).read_bytes(), how, given.dtype)[0] for name in ("coffee.jpg", "astronaut.jpg")]
    sample = np.concatenate(found if found[0].shape == found[1].shape else [found[0]] * 2)
    fits = graphs.batches(graphs.session(path), {given.name: sample})
    return path, sample, order.options.max_batch_size if fits else 1


def _batch_note(batch: int) -> list[str]:
    return ["The network takes one item at a time: nothing is batched."] if batch == 1 else []


def _activation(order: Order, made: Any) -> str:
    """Return what makes probabilities of the output: nothing, when it holds some already."""
    if order.options.activation:
        return str(order.options.activation)
    values = made.astype(np.float64)
    is_probability = values.min() >= -1e-3 and np.allclose(values.sum(axis=-1), 1, atol=5e-3)
    return "none" if is_probability else "softmax"


def _labels(order: Order, classes: int | None, known: dict[str, Any]) -> list[str]:
    if order.options.labels is not None:
        return labels_of(order.options.labels, classes)
    if known.get("labels"):
        return list(known["labels"])
    count = f"{classes} " if classes else ""
    raise CommandError(f"The file does not name its {count}classes: give --labels FILE, one a line.")


def _tensor(port: Port, made: Any) -> dict[str, Any]:
    return {"name": port.name, "dtype": port.dtype, "dims": list(made.shape[1:])}


def _spec(order: Order, **parts: Any) -> ModelSpec:
    source = {"origin": order.source, "license": order.options.license or "unknown"}
    if order.options.precision == "fp32" or parts["task"] == "none":
        parts["network"]["tensorrt"] = {"precision": "fp16"}
    return ADAPTER.validate_python({"name": order.name, "source": source, **parts})


def ultralytics(model: onnx.ModelProto) -> dict[str, Any]:
    """Return what Ultralytics' exporter writes beside a graph: classes, task, whether NMS is inside."""
    said = {entry.key: entry.value for entry in model.metadata_props}
    if "names" not in said or "Ultralytics" not in said.get("author", ""):
        return {}
    names = ast.literal_eval(said["names"])
    if said.get("task") != "detect":
        raise CommandError(
            f"This is an Ultralytics network for '{said.get('task')}': only 'detect' can be served here."
        )
    _, outputs = graphs.ports(model)
    inside = len(outputs) == 1 and len(outputs[0].shape) == 3 and outputs[0].shape[-1] == 6
    return {
        "task": "object-detection",
        "labels": [str(names[index]) for index in range(len(names))],
        "decoder": "end_to_end" if inside else "yolov8",
        "resize": "letterbox_center",
        "scale": 1 / 255,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
        "notes": ["Exported by Ultralytics: its licence is AGPL-3.0 unless yours says otherwise."],
    }
