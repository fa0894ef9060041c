"""An ONNX file -> a draft: the task and the shapes are read from its graph, options supply the rest.

file --task of the graph--> `vision` (classifier, detector), `texts`, or `tensors` where no task is known -> draft
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from modelctl.errors import CommandError
from modelctl.graphs import axes, dequantize, networks
from modelctl.graphs.networks import Arrays, Port
from modelctl.models.spec import TensorModel
from modelctl.reference.model import onnx_run
from modelctl.sources import metadata, tensors, texts, undeclared, vision
from modelctl.sources.draft import Draft, Order, refuse_idle

MAX_NUMBERS = 1 << 26
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
    return from_file(order, path, metadata.ultralytics(networks.load(path)))


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
    _require_small(networks.ports(model)[0])
    undeclared.declare(order, model, known.get("size"))
    inputs, outputs = networks.ports(model)
    leadless = axes.leadless(inputs, outputs)
    task = order.options.task or known.get("task") or _task(inputs, _led(outputs, leadless))
    make: Callable[..., Draft] = BY_TASK.get(task, tensors.tensor_model)
    quantized = {}
    if make is not tensors.tensor_model:
        _require_batch(order, inputs)
        for port in leadless:
            axes.lead(model, port.name)
        quantized = dequantize.dequantize(model)
        inputs, outputs = networks.ports(model)
    made = make(order, model, inputs, outputs, known)
    made.notes += known.get("notes", [])
    made.quantized |= quantized
    if not isinstance(made.spec, TensorModel):
        made.original = _original(path, made, [port.name for port in leadless])
    return made


def _require_small(inputs: list[Port]) -> None:
    """Raise CommandError when one item is too large to be made here for the trial."""
    for port in inputs:
        if prod(size or 1 for size in port.shape) > MAX_NUMBERS:
            raise CommandError(
                f"The input '{port.name}' of shape {list(port.shape)} has over {MAX_NUMBERS:,} numbers an item, which "
                "cannot be tried or served: export it with smaller sizes."
            )


def _led(outputs: list[Port], leadless: list[Port]) -> list[Port]:
    """Return outputs as a task reads them: a lone one that lacks the batch with an axis of 1 in front."""
    if len(outputs) != 1 or not leadless:
        return outputs
    return [replace(outputs[0], shape=(1, *outputs[0].shape))]


def _require_batch(order: Order, inputs: list[Port]) -> None:
    """Raise CommandError when an input has no batch axis, or one that is fixed to several items."""
    if order.options.max_batch_size < 1:
        raise CommandError(
            "--max-batch-size 0 serves tensors whole, without a task: add --task none, or give 1 or more."
        )
    for port in inputs:
        if not port.shape:
            raise CommandError(f"The input '{port.name}' has no batch as its first axis: export it with one.")
        if (port.shape[0] or 1) > 1:
            raise CommandError(
                f"The input '{port.name}' takes exactly {port.shape[0]} items: "
                "export it with a dynamic batch, or with a batch of 1."
            )


def _original(path: Path, draft: Draft, leadless: list[str]) -> Callable[[Arrays], Arrays]:
    """Return a function that runs the unchanged file, for the comparison with the stored network."""
    spec = draft.spec
    assert not isinstance(spec, TensorModel)  # noqa: S101 - callers check
    whole = onnx_run(path, spec)
    names = {role: tensor.name for role, tensor in spec.network.outputs.items()}

    def read(role: str, array: Any) -> Any:
        array = draft.quantized[names[role]].real(array) if names[role] in draft.quantized else array
        array = array[None] if names[role] in leadless else array
        return array.reshape(len(array), -1) if role == "logits" and array.ndim == 4 else array

    return lambda inputs: {role: read(role, array) for role, array in whole(inputs).items()}


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
