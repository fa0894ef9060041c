"""An ONNX file -> a draft: the task and the shapes are read from its graph, options supply the rest.

file --task of the graph--> `vision` (classifier, detector), `texts`, or `tensors` where no task is known -> draft
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from modelctl.errors import CommandError
from modelctl.graphs import networks
from modelctl.graphs.networks import Arrays, Port
from modelctl.reference.model import onnx_run
from modelctl.sources import metadata, tensors, texts, vision
from modelctl.sources.draft import BOXES, Draft, Order, refuse_idle
from modelctl.sources.heads import arrangement

BY_TASK: dict[str, Callable[..., Draft]] = {
    "image-classification": vision.classifier,
    "object-detection": vision.detector,
    "text-classification": texts.from_graph,
}


def draft(order: Order) -> Draft:
    """Return the draft of an ONNX file, with the metadata that its exporter wrote into it.

    Raises:
        CommandError: one sentence, when it cannot be served or an option is missing.

    """
    path = Path(order.source)
    if not path.is_file():
        raise CommandError(f"There is no file {path}: give the path of one.")
    refuse_idle(order, ["shape"], "an ONNX file, which holds its shapes")
    # What is served by its tensors needs no facts, and may be of a task that is not served otherwise.
    known = {} if order.options.task == "none" else metadata.ultralytics(networks.load(path))
    return from_file(order, path, known)


def from_file(order: Order, path: Path, known: dict[str, Any]) -> Draft:
    """Return the draft of an ONNX file.

    Args:
        order: what the user asked for.
        path: the file.
        known: facts from outside the graph, as `metadata.ultralytics` returns them.

    Raises:
        CommandError: as `draft`.

    """
    model = networks.load(path)
    task = order.options.task or known.get("task") or _task(order, model)
    if task == "object-detection":
        path = arrangement.feed_sizes(path, order.work, order.options.size)
        model = networks.load(path)
    inputs, outputs = networks.ports(model)
    _require_batch(inputs)
    make: Callable[..., Draft] = BY_TASK.get(task, tensors.tensor_model)
    made = make(order, model, inputs, outputs, known)
    made.notes += known.get("notes", [])
    if task != "none":
        made.original = _original(path, made.spec)
    return made


def _require_batch(inputs: list[Port]) -> None:
    """Raise CommandError when an input has no batch axis, or one that is fixed to several items."""
    for port in inputs:
        if not port.shape:
            raise CommandError(f"The input '{port.name}' has no batch as its first axis: export it with one.")
        if (port.shape[0] or 1) > 1:
            raise CommandError(
                f"The input '{port.name}' takes exactly {port.shape[0]} items: "
                "export it with a dynamic batch, or with a batch of 1."
            )


def _original(path: Path, spec: Any) -> Callable[[Arrays], Arrays]:
    """Return a function that runs the unchanged file, for the comparison with the stored network."""
    whole = onnx_run(path, spec)

    def run(inputs: Arrays) -> Arrays:
        made = whole(inputs)
        made = {
            role: array.reshape(len(array), -1) if role == "logits" and array.ndim == 4 else array
            for role, array in made.items()
        }
        axes = {role: 1 + len(tensor.dims or []) for role, tensor in spec.network.outputs.items()}
        return {role: array[None] if array.ndim + 1 == axes[role] else array for role, array in made.items()}

    return run


def _task(order: Order, model: onnx.ModelProto) -> str:
    inputs, outputs = networks.ports(model)
    names = {port.name for port in inputs}
    if "input_ids" in names:
        return "text-classification"
    # A detector may also take the sizes of its pictures, a network of another kind that takes them is no picture's.
    pictures = [port for port in inputs if port.name not in arrangement.SIZES]
    sized = len(inputs) > len(pictures)
    if len(pictures) == 1 and len(pictures[0].shape) == 4 and 3 in (pictures[0].shape[1], pictures[0].shape[3]):
        hinted = any(getattr(order.options, name) is not None for name in ("labels", *BOXES))
        if arrangement.is_detector(model, outputs, hinted=hinted, decoder=order.options.decoder):
            return "object-detection"
        if arrangement.may_be_classes(outputs) and not sized:
            return "image-classification"
    return "none"
