"""Changes of a detector's outputs and inputs, so that Triton can serve its head; the numbers stay the same.

keep         outputs that nobody reads are dropped
feed         an input that is the same for every picture becomes a constant
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

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


def suppresses(model: onnx.ModelProto) -> bool:
    """Tell whether the graph does NMS itself."""
    return any("nms" in node.op_type.lower() or node.op_type == "NonMaxSuppression" for node in model.graph.node)
