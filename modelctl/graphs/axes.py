"""Changes of a graph's declared sizes and of its outputs' first axis, for networks that were exported without a batch.

declare_whole   outputs keep every axis: a network that Triton serves without a batch
insert          puts an axis of 1 into an output, as in front of a network's for one item: [605, 95] -> [1, 605, 95]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelctl.graphs import networks
from modelctl.graphs.networks import Port
from modelctl.graphs.surgery import opset_of, rename

AXES_AS_INPUT = 13
"""The opset since which Unsqueeze takes its axes as an input."""


def declare_whole(path: Path, outputs: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Declare every axis of the outputs in the file at `path` (-1 is any size); return them as it is read."""
    model = networks.load(path)
    for entry in model.graph.output:
        set_sizes(entry, [size if size > 0 else None for size in outputs[entry.name]])
    networks.save(model, path)
    return {
        output.name: [size if isinstance(size, int) else -1 for size in output.shape]
        for output in networks.session(path).get_outputs()
    }


def set_sizes(entry: onnx.ValueInfoProto, sizes: Sequence[int | None], batch: bool = False) -> None:
    """Declare the sizes of an input or output: numbers, or None where free; with `batch` the first is the batch."""
    shape = entry.type.tensor_type.shape
    shape.SetInParent()
    del shape.dim[:]
    for axis, size in enumerate(sizes):
        if size is None or (batch and not axis):
            shape.dim.add(dim_param=networks.BATCH if batch and not axis else f"{entry.name}/{axis}")
        else:
            shape.dim.add(dim_value=size)


def leadless(inputs: Sequence[Port], outputs: Sequence[Port]) -> list[Port]:
    """Return the outputs that certainly lack a batch: of a network for one item, they declare another first size."""
    if any(port.shape[:1] != (1,) for port in inputs):
        return []
    return [port for port in outputs if len(port.shape) > 1 and (port.shape[0] or 1) > 1]


def insert(model: onnx.ModelProto, name: str, axis: int) -> None:
    """Insert an axis of size 1 into an output."""
    entry = next(entry for entry in model.graph.output if entry.name == name)
    inside = rename(model, name, "/without_axis")
    if opset_of(model) < AXES_AS_INPUT:
        node = helper.make_node("Unsqueeze", [inside], [name], f"{name}/unsqueeze", axes=[axis])
    else:
        node = helper.make_node("Unsqueeze", [inside, f"{name}/axis"], [name], f"{name}/unsqueeze")
        model.graph.initializer.append(numpy_helper.from_array(np.array([axis], np.int64), f"{name}/axis"))
    model.graph.node.append(node)
    shape = entry.type.tensor_type.shape
    dims = [onnx.TensorShapeProto.Dimension.FromString(dim.SerializeToString()) for dim in shape.dim]
    del shape.dim[:]
    shape.dim.extend([*dims[:axis], onnx.TensorShapeProto.Dimension(dim_value=1), *dims[axis:]])
