"""Networks with one to three parts changed: still protobuf, seldom still a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

Source = np.random.Generator
OPERATORS = ("Abs", "Add", "Cast", "Concat", "Conv", "Expand", "Gather", "Loop", "MatMul", "Pad", "Range", "Reshape")
OPERATORS += ("Resize", "Slice", "Split", "Tile", "TopK", "Transpose", "QuantizeLinear", "NonZero", "Mystery")
SIZES = (-1, 0, 1, 2, 3, 7, 255, 2**31 - 1, 2**31, 2**62, -(2**63))


def damaged(data: bytes, source: Source) -> bytes:
    """Return a network with some of its parts changed."""
    model = onnx.ModelProto.FromString(data)
    for _ in range(int(source.integers(1, 4))):
        _pick(CHANGES, source)(model, source)
    return model.SerializeToString()


def _pick(items: Any, source: Source) -> Any:
    return items[int(source.integers(0, len(items)))]


def _operator(model: onnx.ModelProto, source: Source) -> None:
    _pick(model.graph.node, source).op_type = _pick(OPERATORS, source)


def _wire(model: onnx.ModelProto, source: Source) -> None:
    """Let an operator read another tensor; its own output too."""
    names = [name for node in model.graph.node for name in (*node.input, *node.output)]
    node = _pick(model.graph.node, source)
    if node.input:
        node.input[int(source.integers(0, len(node.input)))] = _pick(names, source)


def _attribute(model: onnx.ModelProto, source: Source) -> None:
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    if attributes:
        attribute = _pick(attributes, source)
        attribute.i = _pick(SIZES, source)
        if attribute.ints:
            attribute.ints[int(source.integers(0, len(attribute.ints)))] = _pick(SIZES, source)


def _declared(model: onnx.ModelProto, source: Source) -> None:
    """Declare another size, another type, or no shape."""
    entries = [*model.graph.input, *model.graph.output]
    if not entries:
        return
    entry = _pick(entries, source).type.tensor_type
    what = int(source.integers(0, 4))
    if what == 0:
        entry.elem_type = int(source.integers(0, 24))
    elif what == 1:
        entry.ClearField("shape")
    elif what == 2:
        entry.shape.dim.add(dim_value=int(_pick(SIZES, source)))
    elif entry.shape.dim:
        entry.shape.dim[int(source.integers(0, len(entry.shape.dim)))].dim_value = int(_pick(SIZES, source))


def _weights(model: onnx.ModelProto, source: Source) -> None:
    """Change the sizes, the type or the values of weights."""
    if not model.graph.initializer:
        return
    tensor = _pick(model.graph.initializer, source)
    what = int(source.integers(0, 4))
    if what == 0 and tensor.dims:
        tensor.dims[int(source.integers(0, len(tensor.dims)))] = _pick(SIZES, source)
    elif what == 1:
        tensor.data_type = int(source.integers(0, 24))
    elif what == 2:
        values = numpy_helper.to_array(tensor)
        kind = values.dtype.kind
        fill = _pick(SIZES, source) if kind == "i" and values.dtype == np.int64 else np.nan if kind == "f" else 0
        tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, fill), tensor.name))
    else:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=_pick(("a", "../a", "/dev/zero", "/proc/self/mem"), source))


def _lost(model: onnx.ModelProto, source: Source) -> None:
    part = _pick((model.graph.node, model.graph.initializer, model.graph.input, model.graph.output), source)
    if part:
        del part[int(source.integers(0, len(part)))]


def _doubled(model: onnx.ModelProto, source: Source) -> None:
    part = _pick((model.graph.node, model.graph.initializer, model.graph.input, model.graph.output), source)
    if part:
        part.add().CopyFrom(_pick(part, source))


def _version(model: onnx.ModelProto, source: Source) -> None:
    if model.opset_import:
        model.opset_import[0].version = int(_pick((0, 1, 6, 9, 13, 18, 25, 99, 2**40), source))


CHANGES: tuple[Callable[[onnx.ModelProto, Source], None], ...] = (
    *(_operator, _wire, _attribute, _declared, _weights, _lost, _doubled, _version),
)
