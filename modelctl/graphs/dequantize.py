"""Turns the quantised outputs of a network into real numbers, inside the graph: Triton then hands on FP32.

    QuantizeLinear(scale, zero) -> output UINT8   becomes   QuantizeLinear -> UINT8 -> DequantizeLinear -> output FP32

The scale stands in the operator that made the output; operators that only move values are passed on the way. Scores
that were quantised without leaving a scale are recognised by their sum: 255 or 256 is 1.
https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html,
https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from modelctl.graphs.surgery import rename

BYTES = (TensorProto.UINT8, TensorProto.INT8)
SCALE_AT = {
    "QuantizeLinear": 1,
    "QLinearSoftmax": 3,
    "QLinearSigmoid": 3,
    "QLinearLeakyRelu": 3,
    "QLinearGlobalAveragePool": 3,
    "QLinearAveragePool": 3,
    "QLinearConv": 6,
    "QLinearMatMul": 6,
    "QLinearAdd": 6,
    "QLinearMul": 6,
    "QGemm": 7,
    "QLinearConcat": 0,
}
"""Which input of an operator is the scale of its output; the next one is its zero point."""
MOVES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Slice", "Gather", "MaxPool"})
ROUNDS = frozenset({"QuantizeLinear", "DequantizeLinear"})
MOST_MOVES = 8
LEAST_SUM, MOST_SUM = 230, 282
"""Bytes of scores sum to 256, but for the rounding of each: about a tenth, since most of many classes are 0."""


class Quantized(NamedTuple):
    """What bytes mean: (byte - zero) * scale."""

    scale: float
    zero: int

    def real(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return real numbers."""
        return (values.astype(np.float32) - np.float32(self.zero)) * np.float32(self.scale)


def dequantize(model: onnx.ModelProto) -> dict[str, Quantized]:
    """Make FP32 of each output in bytes whose scale the graph holds; return the scales of these outputs by name."""
    makers = {name: node for node in model.graph.node for name in node.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    done = {}
    for entry in model.graph.output:
        found = _parameters(makers, entry.name) if entry.type.tensor_type.elem_type in BYTES else []
        values = [number for name in found if name in weights and (number := _number(weights[name])) is not None]
        if not found or len(values) != len(found):
            continue  # of another kind, or computed from the input, or one scale a class
        inside = rename(model, entry.name, "/quantized")
        model.graph.node.append(
            helper.make_node("DequantizeLinear", [inside, *found], [entry.name], f"{entry.name}/dequantize")
        )
        entry.type.tensor_type.elem_type = TensorProto.FLOAT
        done[entry.name] = Quantized(values[0], int(values[1]) if len(values) > 1 else 0)
    return done


def is_rounded_softmax(model: onnx.ModelProto, output: str) -> bool:
    """Tell whether an output is what a softmax gave and bytes rounded, so that its sum is not 1."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node, rounded = makers.get(output), False
    for _ in range(MOST_MOVES):
        if node is None or node.op_type not in MOVES | ROUNDS or not node.input:
            break
        rounded |= node.op_type in ROUNDS
        node = makers.get(node.input[0])
    return node is not None and (node.op_type == "QLinearSoftmax" or (rounded and node.op_type == "Softmax"))


def _number(tensor: TensorProto) -> float | None:
    """Return the one number of a tensor; None when it holds several, or is damaged."""
    try:
        value = numpy_helper.to_array(tensor)
    except Exception:  # noqa: BLE001 - onnx raises any error for a tensor whose parts do not fit
        return None
    return float(value.item()) if value.size == 1 else None


def _parameters(makers: dict[str, NodeProto], name: str) -> list[str]:
    """Return the names of an output's scale and, where there is one, its zero point; empty when it has none."""
    node = makers.get(name)
    for _ in range(MOST_MOVES):
        if node is None or node.op_type not in MOVES or not node.input:
            break
        node = makers.get(node.input[0])
    at = SCALE_AT.get(node.op_type) if node is not None else None
    return [part for part in node.input[at : at + 2] if part] if node is not None and at is not None else []


def zero_of_scores(values: npt.NDArray[Any]) -> int | None:
    """Return the value that means 0 in rows [N, C] of quantised scores: 0, or -128 for INT8; None for other values."""
    if values.dtype.kind not in "iuf" or values.shape[-1] < 2 or not values.size:
        return None
    numbers = values.astype(np.float64)
    if not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any():
        return None
    for zero in (0, -128):
        sums = (numbers - zero).sum(axis=-1)
        if numbers.min() >= zero and numbers.max() <= zero + 256 and _near(sums):
            return zero
    return None


def _near(sums: npt.NDArray[np.float64]) -> bool:
    return bool(((sums >= LEAST_SUM) & (sums <= MOST_SUM)).all())


def unit(model: onnx.ModelProto, name: str, zero: int) -> Quantized:
    """Make scores of 0 to 1 in FP32 of an output of quantised scores: (value - zero) / 256."""
    entry = next(entry for entry in model.graph.output if entry.name == name)
    inside = rename(model, name, "/quantized")
    constants = {"zero": np.float32(zero), "scale": np.float32(1 / 256)}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), f"{name}/{what}") for what, value in constants.items()
    )
    model.graph.node.extend(
        [
            helper.make_node("Cast", [inside], [f"{name}/real"], f"{name}/cast", to=TensorProto.FLOAT),
            helper.make_node("Sub", [f"{name}/real", f"{name}/zero"], [f"{name}/raised"], f"{name}/subtract"),
            helper.make_node("Mul", [f"{name}/raised", f"{name}/scale"], [name], f"{name}/multiply"),
        ]
    )
    entry.type.tensor_type.elem_type = TensorProto.FLOAT
    return Quantized(1 / 256, zero)
