"""An ONNX network without a known task -> a draft that is served by its tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from modelctl.errors import CommandError
from modelctl.graphs import networks, surgery
from modelctl.graphs.networks import Arrays, Port
from modelctl.sources import undecided
from modelctl.sources.draft import BOXES, PICTURES, TEXTS, Draft, Order, batch_note, refuse_idle, spec_of, store

FREE_AXIS_SIZE = 8
"""Size used in the trial run for an axis that may have any size."""


def tensor_model(
    order: Order, model: onnx.ModelProto, inputs: list[Port], outputs: list[Port], _known: dict[str, Any]
) -> Draft:
    """Return the draft of a network that is served by its tensors.

    Raises:
        CommandError: when a tensor has no batch axis, or an option has no effect.

    """
    # --size and --layout have already been used to export a TorchScript file.
    others = [name for name in PICTURES if name not in ("size", "layout")]
    idle = (*others, *BOXES, *TEXTS, "labels", "activation")
    if order.options.task is None:
        undecided.refuse(order, idle, inputs, outputs)
    refuse_idle(order, idle, "a network that is served by its tensors (--task none)")
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
    batch = order.options.max_batch_size if networks.batches(session, _random_items(inputs)) else 1
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


def _random_items(inputs: list[Port]) -> Arrays:
    """Return two random items: floats from 0 to 1; integers 0 or 1, because they may be indices into a table."""
    source = np.random.default_rng(0)
    made = {}
    for port in inputs:
        shape = (2, *(size or FREE_AXIS_SIZE for size in port.shape[1:]))
        values = source.random(shape) if port.dtype.startswith("FP") else source.integers(0, 2, shape)
        made[port.name] = values.astype(networks.NUMPY[port.dtype])
    return made
