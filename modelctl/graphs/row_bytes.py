"""Makes a network's matrix products int8, each row of activations with a scale of its own.

    x [T, in] --scale a row--> uint8 --MatMulInteger--> int32 --row scale x column scale--> x @ W [T, out], float32

The usual dynamic quantisation takes one scale from the whole tensor, so a text's answer changes with the other texts
and the padding in its batch; here every row has its own scale. All nodes are standard ONNX. Activations are uint8
around 128, because ONNX Runtime's kernels on x86 are fast for uint8 x int8 (with int8 x int8 the whole network took 7
to 9 times as long, in 1.31). Weights keep 7 bits, because processors with only AVX2 add pairs of products in 16 bits:
2 x 255 x 63 fits, 2 x 255 x 127 does not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

LARGEST_WEIGHT, LARGEST_ACTIVATION, ZERO = 63, 127, 128
LARGEST, TINY, ONE, MIDDLE = "rows/largest", "rows/tiny", "rows/one", "rows/middle"


def row_bytes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace every MatMul whose right side is a float32 weight [in, out]; change and return `model`."""
    graph = model.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    matrices = {name: value for name, value in weights.items() if value.ndim == 2 and value.dtype == np.float32}
    nodes: list[NodeProto] = []
    stored: dict[str, list[TensorProto]] = {}
    rows: set[str] = set()
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in matrices:
            nodes.append(node)
            continue
        source, weight = node.input
        if source not in rows:
            nodes += _quantize_rows(source)
            rows.add(source)
        stored[weight] = _store(weight, matrices[weight])
        nodes += _multiply(source, weight, node.output[0])
    kept = [tensor for tensor in graph.initializer if tensor.name not in stored]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept + [part for parts in stored.values() for part in parts] + _constants())
    onnx.checker.check_model(model)
    return model


def _constants() -> list[TensorProto]:
    # A row of zeros gets the scale `tiny` and stays zero.
    floats = {LARGEST: LARGEST_ACTIVATION, TINY: 1e-20, ONE: 1}
    middle = numpy_helper.from_array(np.array(ZERO, np.uint8), MIDDLE)
    return [*(numpy_helper.from_array(np.array(value, np.float32), name) for name, value in floats.items()), middle]


def _store(name: str, weight: npt.NDArray[np.float32]) -> list[TensorProto]:
    """Return int8 values in -63..63 and one float32 scale a column."""
    scale = np.maximum(np.abs(weight).max(0), np.finfo(np.float32).tiny) / np.float32(LARGEST_WEIGHT)
    values = np.round(weight / scale).astype(np.int8)
    return [
        numpy_helper.from_array(values, name + "_int8"),
        numpy_helper.from_array(scale.astype(np.float32), name + "_scale"),
    ]


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [output], output, **attributes)


def _quantize_rows(source: str) -> list[NodeProto]:
    """Return the nodes of `<source>/uint8` and `<source>/scale` [..., 1]; ReduceMax's axes need an opset below 18."""
    return [
        _node("Abs", [source], source + "/size"),
        _node("ReduceMax", [source + "/size"], source + "/most", axes=[-1], keepdims=1),
        _node("Max", [source + "/most", TINY], source + "/range"),
        _node("Div", [source + "/range", LARGEST], source + "/scale"),
        _node("Div", [source, source + "/scale"], source + "/steps"),
        _node("QuantizeLinear", [source + "/steps", ONE, MIDDLE], source + "/uint8"),
    ]


def _multiply(source: str, weight: str, target: str) -> list[NodeProto]:
    return [
        _node("MatMulInteger", [source + "/uint8", weight + "_int8", MIDDLE], target + "/int32"),
        _node("Cast", [target + "/int32"], target + "/float", to=TensorProto.FLOAT),
        _node("Mul", [target + "/float", weight + "_scale"], target + "/columns"),
        _node("Mul", [target + "/columns", source + "/scale"], target),
    ]
