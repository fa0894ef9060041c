"""An ONNX network for pictures -> a draft of a classifier or a detector.

input, outputs, options --preprocess--> sample pictures --network--> outputs --> classes, sizes, activation -> spec
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from modelctl.console import say
from modelctl.errors import CommandError
from modelctl.graphs import batch, dequantize, networks, surgery
from modelctl.graphs import heads as graph_heads
from modelctl.graphs.networks import Arrays, Port
from modelctl.graphs.trial import run as run_apart
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
from modelctl.sources.heads import arrangement, levels
from modelctl.sources.heads.options import idle
from modelctl.sources.heads.recognition import recognise
from modelctl.sources.heads.seen import Fit, Seen
from modelctl.sources.heads.suppressed import leaves_out_background

READ_BY_OPENCV = ("yolov5", "yolov8", "yolox", "end_to_end", "nanodet", "fastestdet")
SAMPLE_PICTURES = ("coffee.jpg", "astronaut.jpg")


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
    output, made = outputs[0], _scores(trial, outputs[0])
    zero, quantized = dequantize.zero_of_scores(made), {}
    if zero is not None:
        quantized[output.name] = dequantize.unit(model, output.name, zero)
        output, trial = replace(output, dtype="FP32"), _try_out(order, model, given, how)
        made = _scores(trial, output)
    _require_real(output)
    rounded = dequantize.is_rounded_softmax(model, output.name)
    classes = made.shape[-1]
    spec = spec_of(
        order,
        task="image-classification",
        preprocess=how,
        network={
            "inputs": {"image": {"name": given.name, "dtype": given.dtype}},
            "outputs": {"logits": _tensor(output, trial)},
            "batching": {"max_batch_size": trial.batch},
        },
        postprocess={"activation": activation_of(order, made, is_softmax=rounded), "top_k": min(5, classes)},
    )
    labels, notes = picture_labels(order, classes, known.get("labels", []))
    return Draft(spec, trial.path, labels, quantized=quantized, notes=notes + batch_note(trial.batch))


def _scores(trial: Trial, output: Port) -> Any:
    """Return what the sample pictures gave, [pictures, classes]."""
    return np.concatenate([one[output.name] for one in trial.made])


def _require_real(output: Port) -> None:
    if output.dtype not in ("FP32", "FP16"):
        raise CommandError(
            f"The output '{output.name}' is {output.dtype}, without a scale in the graph that would make scores of it, "
            "and its values do not sum to 256: export it with real numbers, or serve its tensors with --task none."
        )


def detector(
    order: Order, model: onnx.ModelProto, inputs: list[Port], _outputs: list[Port], known: dict[str, Any]
) -> Draft:
    """Return the draft of an object detector.

    Raises:
        CommandError: as `classifier`, or when no family of heads fits the outputs.

    """
    refuse_idle(order, TEXTS, "a detector")
    given = _one_picture(inputs)
    unbatched = arrangement.give_batch(model)
    _, outputs = networks.ports(model)
    missing.require_of_pictures(order, given, known, missing.of_labels(order, known))
    how = pictures.preprocess(given, order.options, known)
    pictures.say_odd_size(order.options)
    labels = labels_for(order, None, known.get("labels", []))
    trial = _try_out(order, model, given, how)
    fit = recognise(
        Seen(
            {port.name: [made[port.name] for made in trial.made] for port in outputs},
            (how.width or 0, how.height or 0),
            order.options,
            labels,
            known.get("head") or "",
            unbatched,
        )
    )
    refuse_idle(order, idle(fit.decoder), f"the decoder {fit.decoder}")
    say(f"      read as {fit.line}")
    if fit.decoder == "rtdetr" and "resize" in known and "nms" not in fit.settings:
        known = {**known, "resize": "stretch"}  # Ultralytics' RT-DETR of two classes, whose file does not name its head
    known, notes = _as_trained(known.get("family") or fit.decoder, order, known)
    how = pictures.preprocess(given, order.options, known)
    if len(fit.roles) < len(outputs):
        graph_heads.keep(model, fit.roles.values())
        store(model, trial.path)
    ports = {port.name: port for port in outputs}
    spec = spec_of(
        order,
        task="object-detection",
        preprocess=how,
        network={
            "inputs": {"image": {"name": given.name, "dtype": given.dtype}},
            "outputs": {role: _head_tensor(ports[name], trial, fit) for role, name in fit.roles.items()},
            "batching": {"max_batch_size": trial.batch},
        },
        postprocess=_postprocess(order, fit, known),
    )
    joined = f"{known['family']}, decoded within the network: " if known.get("family") else ""
    notes += [f"Its head is read as {joined}{fit.line}.", *batch_note(trial.batch)]
    return Draft(spec, trial.path, _head_labels(order, fit, known), notes=notes, doubts=list(fit.doubts))


def _as_trained(family: str, order: Order, known: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Add to what the file says how its family reads pictures; return that, and notes on it.

    Their trainers read and resize pictures by OpenCV: without smoothing, and without transparency.
    """
    if family not in (*READ_BY_OPENCV, *levels.FAMILIES):
        return known, []
    note = f"Pictures are resized as by OpenCV (opencv_linear), as trainers of {family} do; --resample overrules it."
    is_chosen = order.options.resample is not None or "resample" in known
    if not is_chosen:
        say(f"      {note}")
    return {"resample": "opencv_linear", "alpha": "drop", **known}, [] if is_chosen else [note]


def _postprocess(order: Order, fit: Fit, known: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the spec that says how the head becomes boxes: options overrule what was recognised."""
    names = ("activation", "score_threshold", "iou_threshold", "max_detections", "agnostic_nms")
    asked = {name: value for name in names if (value := getattr(order.options, name)) is not None}
    return {**known.get("thresholds", {}), "decoder": fit.decoder, **fit.settings, **asked}


def _head_labels(order: Order, fit: Fit, known: dict[str, Any]) -> list[str]:
    """Return one label for each class; the name of the background, which is no class, is left out."""
    labels = labels_for(order, None, known.get("labels", []))
    if leaves_out_background(fit, labels):
        return labels[1:]
    try:
        return labels_for(order, fit.classes, known.get("labels", []))
    except CommandError as error:
        each = (
            " Each of its scores is a class, the last one too." if fit.settings.get("activation") == "sigmoid" else ""
        )
        option = "--activation" if fit.decoder == "detr" else "--decoder"
        raise CommandError(f"{error} (The head was read as {fit.line}; {option} overrules.{each})") from error


def _head_tensor(port: Port, trial: Trial, fit: Fit) -> dict[str, Any]:
    """Return an output's part of the spec; behind NMS, sizes that the graph leaves open are open."""
    made = _tensor(port, trial)
    if fit.decoder in ("end_to_end", "detections"):
        made["dims"] = [-1 if free is None else size for free, size in zip(port.shape[1:], made["dims"], strict=True)]
    return made


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
    """Free the batch, store the network, and run sample pictures one by one and as a batch, in a process of its own.

    Raises:
        CommandError: when an output's first axis is not the batch: a step would read a part of it.

    """
    surgery.free_batch(model)
    if how.width and how.height:
        rows, columns = (2, 3) if how.layout == "NCHW" else (1, 2)
        surgery.fix_sizes(model, given.name, {rows: how.height, columns: how.width})
    path = order.work / "model.onnx"
    store(model, path)
    one, other = (prepare((SAMPLES / name).read_bytes(), how, given.dtype)[0] for name in SAMPLE_PICTURES)
    same = one.shape == other.shape
    pair = np.concatenate([one, other if same else one[:, ::-1, ::-1]])
    feeds = [*batch.feeds({given.name: pair})[: batch.AGAIN], {given.name: np.zeros_like(one)}]
    ran = run_apart(path, [*feeds, *([] if same else [{given.name: other}])])
    whole = batch.whole(ran)
    if whole:
        name, sizes = next(iter(whole.items()))
        raise CommandError(
            f"The first axis of the output '{name}' is not the batch: one picture gives {sizes}. Export the network "
            "with a batch as its first axis, or serve its tensors whole with --task none."
        )
    made = ran.made(batch.FIRST), ran.made(batch.SECOND if same else len(feeds))
    return Trial(path, made, order.options.max_batch_size if batch.fits(ran) else 1)


def _tensor(port: Port, trial: Trial) -> dict[str, Any]:
    """Return an output's part of the spec; an axis is -1 when it is empty or differs between the sample pictures."""
    pairs = zip(*(made[port.name].shape[1:] for made in trial.made), strict=True)
    return {"name": port.name, "dtype": port.dtype, "dims": [a if a == b > 0 else -1 for a, b in pairs]}
