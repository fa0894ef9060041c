"""Frees a batch of several pictures, or a size of theirs, that a file fixes although its network does not need it.

file, --size --copy with free sizes--trial of one picture and of two--> the copy if both run, else the file
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from modelctl.console import say
from modelctl.errors import CommandError
from modelctl.graphs import axes, networks, surgery, trial
from modelctl.graphs.networks import Arrays
from modelctl.sources.draft import Order


def free(order: Order, path: Path) -> Path:
    """Return the network at `path`, or a copy for any number of pictures of the size that the user gave."""
    model = networks.load(path)
    inputs, outputs = networks.ports(model)
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        return path
    (port,) = inputs
    rows, columns = (1, 2) if port.shape[3] in (1, 3) and port.shape[1] not in (1, 3) else (2, 3)
    own = (port.shape[rows], port.shape[columns])
    asked = dict(zip((rows, columns), order.options.size or own, strict=True))
    if (port.shape[0] or 1) == 1 and all(size in (None, asked[axis]) for axis, size in zip(asked, own, strict=True)):
        return path
    surgery.fix_sizes(model, port.name, {axis: size for axis, size in asked.items() if size})
    for entry, output in zip(model.graph.output, outputs, strict=True):
        if output.shape:  # else it declares none
            axes.set_sizes(entry, [None] * len(output.shape), batch=True)
    surgery.free_batch(model)
    copy = order.work / "free.onnx"
    networks.save(model, copy)
    shape = [asked.get(axis) or size or 3 for axis, size in enumerate(port.shape)]
    feeds = [{port.name: np.zeros((count, *shape[1:]), networks.NUMPY[port.dtype])} for count in (1, 2)]
    same = tuple(asked.values()) == own
    if not _runs(copy, feeds, {output.name: output.shape for output in outputs if same or len(output.shape) == 2}):
        return path
    say(f"      the file's input {list(port.shape)} is taken as {['any', *shape[1:]]}, with which it runs too")
    return copy


def _runs(path: Path, feeds: Sequence[Arrays], declared: Mapping[str, Sequence[int | None]]) -> bool:
    """Tell whether a network gives each of one and two pictures a row, as wide as `declared`: classes stay as many."""
    try:
        ran = trial.run(path, feeds)
        made = [ran.made(number) for number in range(len(feeds))]
    except CommandError:
        return False
    return all(
        array.shape[:1] == (count,)
        and all(size in (None, found) for size, found in zip(declared.get(name, ())[1:], array.shape[1:], strict=False))
        for count, outputs in enumerate(made, 1)
        for name, array in outputs.items()
    )
