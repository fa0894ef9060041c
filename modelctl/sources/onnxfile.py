"""An ONNX file -> a draft: the task and the shapes are read from its graph, options supply the rest.

file --task of the graph--> `vision` (classifier, detector), `texts`, or `tensors` where no task is known -> draft
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import onnx

from modelctl.console import say
from modelctl.errors import CommandError
from modelctl.graphs import axes, dequantize, networks, zipmap
from modelctl.graphs.networks import Arrays, Port
from modelctl.models.spec import TensorModel
from modelctl.reference.model import onnx_run
from modelctl.sources import fixed, metadata, preparation, tensors, texts, undeclared, vision
from modelctl.sources.draft import BOXES, PICTURES, Draft, Order, refuse_idle
from modelctl.sources.heads import arrangement, levels

GREY_NOTE = (
    "If its input is a grey picture, it can be served for pictures: add it with --labels FILE, --resize, --scale, "
    "--mean and --std."
)
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
    return from_path(order, path, [])


def from_path(order: Order, path: Path, notes: list[str]) -> Draft:
    """Return the draft of an ONNX file that was given or converted; `notes` are for the model card.

    Raises:
        CommandError: as `draft`.

    """
    served = zipmap.cut(path, order.work)
    # A network that is served by its tensors needs no facts, and may be of a task that is not served otherwise.
    known = {} if order.options.task == "none" else metadata.facts(networks.load(served.path))
    known["notes"] = [*known.get("notes", []), *notes, *served.notes]
    if served.labels:
        known.setdefault("labels", served.labels)
    return from_file(order, served.path, known)


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
    for note in known.get("notes", []):
        say(f"      {note}")
    task = order.options.task or known.get("task") or _task(order, model, grey=_is_told_grey(order, known))
    if task in ("image-classification", "object-detection"):
        freed = fixed.free(order, arrangement.feed_mask(path, order.work))
        if freed != path:
            path, model = freed, networks.load(freed)
            undeclared.declare(order, model, known.get("size"))
    if task == "object-detection":
        path = arrangement.feed_sizes(path, order.work, order.options.size)
        path, family = levels.join(path, order.work, order.options.size or known.get("size"))
        known = {**known, "family": family}
        model = networks.load(path)
        undeclared.declare(order, model, known.get("size"))
    inputs, outputs = networks.ports(model)
    make: Callable[..., Draft] = BY_TASK.get(task, tensors.tensor_model)
    quantized = {}
    if make is not tensors.tensor_model:
        _require_batch(order, inputs)
        if task != "object-detection":  # whose head gets its batch where it is read
            for port in axes.leadless(inputs, outputs):
                axes.insert(model, port.name, 0)
        quantized = dequantize.dequantize(model)
        inputs, outputs = networks.ports(model)
    made = make(order, model, inputs, outputs, known)
    made.notes += known.get("notes", [])
    made.doubts += preparation.overruled(known, order.options)
    made.quantized |= quantized
    if not isinstance(made.spec, TensorModel):
        made.original = _original(path, made)
    elif order.options.task is None and _task(order, networks.load(path), grey=True) != "none":
        say(f"      {GREY_NOTE}")
        made.notes.append(GREY_NOTE)
    return made


def _require_small(inputs: list[Port]) -> None:
    """Raise CommandError when one item is too large to be made here for the trial."""
    for port in inputs:
        if prod(size or 1 for size in port.shape) > MAX_NUMBERS:
            raise CommandError(
                f"The input '{port.name}' of shape {list(port.shape)} has over {MAX_NUMBERS:,} numbers an item, which "
                "cannot be tried or served: export it with smaller sizes."
            )


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


def _original(path: Path, draft: Draft) -> Callable[[Arrays], Arrays]:
    """Return a function that runs the unchanged file, for the comparison with the stored network."""
    spec = draft.spec
    assert not isinstance(spec, TensorModel)  # noqa: S101 - callers check
    whole = onnx_run(path, spec)
    names = {role: tensor.name for role, tensor in spec.network.outputs.items()}
    sizes = {role: len(tensor.dims or []) for role, tensor in spec.network.outputs.items()}

    def read(role: str, array: Any) -> Any:
        array = draft.quantized[names[role]].real(array) if names[role] in draft.quantized else array
        array = array.reshape(len(array), -1) if role == "logits" and array.ndim == 4 else array
        return array[None] if array.ndim == sizes[role] else array  # without a batch, which the stored network has

    return lambda inputs: {role: read(role, array) for role, array in whole(inputs).items()}


def _is_told_grey(order: Order, known: dict[str, Any]) -> bool:
    """Tell whether options or metadata say that a network takes pictures: an input of one channel alone does not."""
    options = [
        name for name in (*PICTURES, "labels") if name not in ("size", "layout", "no_fold")
    ]  # the first two export TorchScript too
    return "channel_order" in known or any(getattr(order.options, name) is not None for name in options)


def _task(order: Order, model: onnx.ModelProto, *, grey: bool) -> str:
    inputs, outputs = networks.ports(model)
    names = {port.name for port in inputs}
    if "input_ids" in names:
        return "text-classification"
    # A detector may also take the sizes of its pictures; a network of another kind that takes them is not for pictures.
    pictures = [port for port in inputs if port.name not in (*arrangement.SIZES, arrangement.MASK)]
    sized = len(inputs) > len(pictures)
    channels = {3, 1} if grey else {3}
    if len(pictures) == 1 and len(shape := pictures[0].shape) == 4 and channels & {shape[1], shape[3]}:
        hinted = any(getattr(order.options, name) is not None for name in ("labels", *BOXES))
        batch = shape[0] or 1
        if arrangement.is_detector(model, outputs, batch, hinted=hinted, decoder=order.options.decoder):
            return "object-detection"
        if arrangement.may_be_classes(outputs, batch) and not sized:
            return "image-classification"
    return "none"
