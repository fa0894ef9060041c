"""Changes of a detector's outputs and inputs, so that Triton can serve its head; the numbers stay the same.

add_axis     an output without a batch axis gets one
keep         outputs that nobody reads are dropped
feed         an input that is the same for every picture becomes a constant
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelctl.graphs import networks

AXES_ARE_AN_INPUT = 13
"""The opset since which Unsqueeze takes its axes as an input."""


def add_axis(model: onnx.ModelProto, output: str, axis: int) -> None:
    """Insert an axis of size 1 into an output."""
    entry = next(entry for entry in model.graph.output if entry.name == output)
    inside = f"{output}/without_axis"
    for node in model.graph.node:
        node.output[:] = [inside if name == output else name for name in node.output]
        node.input[:] = [inside if name == output else name for name in node.input]
    opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1)
    if opset >= AXES_ARE_AN_INPUT:
        axes = f"{output}/axis"
        model.graph.initializer.append(numpy_helper.from_array(np.array([axis], np.int64), axes))
        node = helper.make_node("Unsqueeze", [inside, axes], [output], f"{output}/unsqueeze")
    else:
        node = helper.make_node("Unsqueeze", [inside], [output], f"{output}/unsqueeze", axes=[axis])
    model.graph.node.append(node)
    old = [
        onnx.TensorShapeProto.Dimension.FromString(dim.SerializeToString()) for dim in entry.type.tensor_type.shape.dim
    ]
    del entry.type.tensor_type.shape.dim[:]
    entry.type.tensor_type.shape.dim.extend([*old[:axis], onnx.TensorShapeProto.Dimension(dim_value=1), *old[axis:]])


def keep(model: onnx.ModelProto, outputs: Collection[str]) -> None:
    """Drop all other outputs."""
    kept = [entry for entry in model.graph.output if entry.name in outputs]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def feed(model: onnx.ModelProto, name: str, value: Any) -> None:
    """Replace an input by a constant of its own data type."""
    entry = next(entry for entry in model.graph.input if entry.name == name)
    dtype = networks.NUMPY[networks.DATA_TYPES[entry.type.tensor_type.elem_type]]
    model.graph.input.remove(entry)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))


def suppresses(model: onnx.ModelProto) -> bool:
    """Tell whether the graph does NMS itself."""
    return any("nms" in node.op_type.lower() or node.op_type == "NonMaxSuppression" for node in model.graph.node)
