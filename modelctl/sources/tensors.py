"""An ONNX network without a known task -> a draft that is served by its tensors.

random items --trial, with a free batch--> it batches, or takes one item at a time
             `--trial, as exported------> the first axis is no batch: every tensor is served whole
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from modelctl.errors import CommandError
from modelctl.graphs import batch, networks, surgery, trial
from modelctl.graphs.networks import Arrays, Port
from modelctl.sources import undecided
from modelctl.sources.draft import BOXES, PICTURES, TEXTS, Draft, Order, Sample, batch_note, refuse_idle, spec_of, store

FREE_AXIS_SIZES = (8, 32, 224)
"""Sizes that are tried for axes that may have any size, until one runs: networks for pictures often need multiples."""
NOTE = "No task is known for this network: it is served by its tensors."
WHOLE_NOTE = "Nothing is batched: the first axis of its tensors is not a batch, so each is served with all of its axes."


def tensor_model(
    order: Order, model: onnx.ModelProto, inputs: list[Port], outputs: list[Port], _known: dict[str, Any]
) -> Draft:
    """Return the draft of a network that is served by its tensors.

    Raises:
        CommandError: when a tensor has no axis, or an option has no effect.

    """
    # --size and --layout have already been used to export a TorchScript file.
    others = [name for name in PICTURES if name not in ("size", "layout")]
    idle = (*others, *BOXES, *TEXTS, "labels", "activation")
    if order.options.task is None:
        undecided.refuse(order, idle, inputs, outputs)
    refuse_idle(order, idle, "a network that is served by its tensors (--task none)")
    for port in (*inputs, *outputs):
        if not port.shape:
            raise CommandError(
                f"'{port.name}' is a single number without axes, which Triton cannot serve: export it with shape [1]."
            )
    if order.options.max_batch_size and all(len(port.shape) > 1 and port.shape[0] in (1, None) for port in inputs):
        made = _batched(order, model, inputs, outputs)
        if made is not None:
            return made
    return _whole(order, model, inputs)


def _batched(order: Order, model: onnx.ModelProto, inputs: list[Port], outputs: list[Port]) -> Draft | None:
    """Return the draft of a network whose first axis is the batch; None, and an unchanged `model`, if it is not."""
    declared = [onnx.ValueInfoProto.FromString(entry.SerializeToString()) for entry in _entries(model)]
    surgery.free_batch(model)
    path = order.work / "model.onnx"
    store(model, path)
    ran, feeds = _try_out(path, inputs, batched=True)
    if batch.whole(ran) or any(_without_batch(inputs, port) for port in outputs):
        for entry, before in zip(_entries(model), declared, strict=True):
            entry.CopyFrom(before)
        return None
    largest = order.options.max_batch_size if batch.fits(ran) else 1
    sizes = {port.name: [size or -1 for size in port.shape[1:]] for port in inputs}
    sizes |= {name: _learned(outputs, name, array.shape)[1:] for name, array in ran.made(batch.FIRST).items()}
    draft = _draft(order, (inputs, outputs), sizes, largest, _sample(ran, feeds[batch.FIRST]))
    draft.notes += batch_note(largest)
    return draft


def _whole(order: Order, model: onnx.ModelProto, inputs: list[Port]) -> Draft:
    if order.options.tensorrt:
        raise CommandError(
            "The first axis of its tensors is not a batch, which a TensorRT plan needs: omit --tensorrt."
        )
    path = order.work / "model.onnx"
    store(model, path)
    ran, (item, *_) = _try_out(path, inputs, batched=False)
    outputs = networks.ports(model)[1]
    for name, array in ran.made(batch.FIRST).items():
        if not array.ndim:
            raise CommandError(
                f"'{name}' is a single number without axes, which Triton cannot serve: export it with shape [1]."
            )
    sizes = {port.name: [size or -1 for size in port.shape] for port in inputs}
    sizes |= {
        name: [size or -1 for size in ran.shapes[name]] if len(ran.shapes[name]) == array.ndim else [-1] * array.ndim
        for name, array in ran.made(batch.FIRST).items()
    }
    draft = _draft(order, (inputs, outputs), sizes, 0, _sample(ran, item))
    draft.notes.append(WHOLE_NOTE)
    return draft


def _try_out(path: Path, inputs: Sequence[Port], *, batched: bool) -> tuple[trial.Trial, list[Arrays]]:
    """Run a network on random items; return what it gave, and the feeds as `batch` names them."""
    is_free = any(size is None for port in inputs for size in port.shape[batched:])
    for size in FREE_AXIS_SIZES if is_free else FREE_AXIS_SIZES[:1]:
        items = _random_items(inputs, 2 if batched else 1, size, batched=batched)
        feeds = batch.feeds(items) if batched else [items] * 4
        ran = trial.run(path, feeds)
        if not isinstance(ran.runs[batch.FIRST], str):
            break
    return ran, feeds


def _draft(
    order: Order,
    ports: tuple[Sequence[Port], Sequence[Port]],
    sizes: Mapping[str, Sequence[int]],
    largest: int,
    sample: Sample,
) -> Draft:
    network = {
        kind: {port.name: {"name": port.name, "dtype": port.dtype, "dims": sizes[port.name]} for port in of_kind}
        for kind, of_kind in zip(("inputs", "outputs"), ports, strict=True)
    }
    spec = spec_of(order, task="none", network={**network, "batching": {"max_batch_size": largest}})
    return Draft(spec, order.work / "model.onnx", [], sample=sample, notes=[NOTE])


def _sample(ran: trial.Trial, item: Arrays) -> Sample:
    return Sample(item, ran.made(batch.FIRST), is_steady=batch.is_steady(ran))


def _entries(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*model.graph.input, *model.graph.output]


def _without_batch(inputs: Sequence[Port], output: Port) -> bool:
    """Tell whether an output's first axis is free where the network takes exactly one item: it counts other things."""
    fixed = all(port.shape[0] == 1 for port in inputs)
    return len(output.shape) < 2 or (fixed and output.shape[0] != 1)


def _learned(outputs: Sequence[Port], name: str, made: Sequence[int]) -> list[int]:
    """Return an output's sizes: declared ones where they are true, -1 where free."""
    declared = next(port.shape for port in outputs if port.name == name)
    if len(declared) != len(made):
        return [-1] * len(made)
    return [size if size == real else -1 for size, real in zip(declared, made, strict=True)]


def _random_items(inputs: Sequence[Port], count: int, free: int, *, batched: bool) -> Arrays:
    """Return random items: floats from 0 to 1; integers 0 or 1, because they may be indices into a table.

    With `batched` the first axis holds `count` items; else it has the size that the network wants. Free axes have the
    size `free`.
    """
    source = np.random.default_rng(0)
    made = {}
    for port in inputs:
        shape = [size or free for size in port.shape]
        if batched or not port.shape[0]:
            shape[0] = count
        values = source.random(shape) if port.dtype.startswith("FP") else source.integers(0, 2, shape)
        made[port.name] = values.astype(networks.NUMPY[port.dtype])
    return made
