"""Learns the sizes of outputs that a file does not declare, by running it.

inputs of several sizes --trial--> the outputs' sizes --> declared: a number where all runs agree, else free
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from modelctl.errors import CommandError
from modelctl.graphs import axes, networks, trial
from modelctl.graphs.networks import Arrays, Port
from modelctl.sources.draft import Order, store

SIDES = (224, 64, 640, 16, 8)
"""Sizes that are tried for axes without one, as pictures and texts have them."""
CHANNELS, PICTURE_AXES = 3, 4


def declare(order: Order, model: onnx.ModelProto, known: Sequence[int] | None) -> None:
    """Declare the outputs that have no shape; change `model`. Nothing runs when all of them have one.

    `known` is the picture's size [height, width] that the source knows, used where the user gives no `--size`.

    Raises:
        CommandError: when the network runs on no size that is tried.

    """
    missing = [entry for entry in model.graph.output if not entry.type.tensor_type.HasField("shape")]
    if not missing:
        return
    path = order.work / "undeclared.onnx"
    store(model, path)
    inputs, _ = networks.ports(model)
    size = order.options.size or known
    feeds = [_feed(inputs, (side, side) if size is None else size) for side in (SIDES if size is None else SIDES[:1])]
    ran = trial.run(path, feeds)
    made = [one for one in ran.runs if not isinstance(one, str)]
    if not made:
        reason = " ".join(str(ran.runs[0]).split())[:200]
        raise CommandError(
            f"The output '{missing[0].name}' has no declared shape, and the network does not run on sample inputs, "
            f"from which it would be learned ({reason}): give --size, or export it with the shapes of its outputs."
        )
    for entry in missing:
        axes.set_sizes(entry, _agreed([one[entry.name].shape for one in made]), batch=True)


def _feed(inputs: Sequence[Port], size: Sequence[int]) -> Arrays:
    """Return one item: zeros for real numbers, ones for whole ones, which may be tokens."""
    made = {}
    for port in inputs:
        free = [size[min(number, 1)] for number in range(len(port.shape))]
        if len(port.shape) == PICTURE_AXES:
            free = [1, CHANNELS, *size] if port.shape[-1] != CHANNELS else [1, *size, CHANNELS]
        shape = [known or assumed for known, assumed in zip(port.shape, [1, *free[1:]], strict=True)]
        made[port.name] = np.full(shape, 0 if port.dtype.startswith("FP") else 1, networks.NUMPY[port.dtype])
    return made


def _agreed(shapes: Sequence[tuple[int, ...]]) -> list[int | None]:
    """Return the sizes that all runs agree on; None where they differ, or where nothing came out."""
    if len({len(shape) for shape in shapes}) > 1:
        raise CommandError("An output has another number of axes for inputs of another size: export it with one shape.")
    return [sizes[0] if len(set(sizes)) == 1 and sizes[0] else None for sizes in zip(*shapes, strict=True)]
