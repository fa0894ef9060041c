"""Changes of a detector's outputs and inputs, so that Triton can serve its head; the numbers stay the same.

keep         outputs that nobody reads are dropped
feed         an input that is the same for every picture becomes a constant
feed_ones    an input of ones is made from the picture's sizes
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelctl.graphs import networks


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


def feed_ones(model: onnx.ModelProto, name: str, picture: str) -> None:
    """Replace an input [N, H, W] by ones; sizes that it leaves free are those of the picture [N, C, H, W]."""
    entry = next(entry for entry in model.graph.input if entry.name == name)
    dims = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    kind = entry.type.tensor_type.elem_type
    model.graph.input.remove(entry)
    taken = [0, *(4 + axis if dims[axis] > 0 else 1 + axis for axis in (1, 2))]  # of N, C, H, W, then its own sizes
    for part, numbers in (("own", dims), ("taken", taken)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), f"{name}/{part}"))
    one = helper.make_tensor("one", kind, [1], [1])
    nodes = [
        helper.make_node("Shape", [picture], [f"{name}/picture"]),
        helper.make_node("Concat", [f"{name}/picture", f"{name}/own"], [f"{name}/sizes"], axis=0),
        helper.make_node("Gather", [f"{name}/sizes", f"{name}/taken"], [f"{name}/shape"]),
        helper.make_node("ConstantOfShape", [f"{name}/shape"], [name], value=one),
    ]
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def suppresses(model: onnx.ModelProto) -> bool:
    """Tell whether the graph does NMS itself."""
    return any("nms" in node.op_type.lower() or node.op_type == "NonMaxSuppression" for node in model.graph.node)
