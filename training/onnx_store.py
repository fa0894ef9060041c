"""Stores an ONNX model's float32 weights in fewer bits; the runtime widens them again when it loads the model.

    float32 model --half_weights--> float16 weights: half the size
                  --byte_weights--> int8 matrices with a scale per channel: a quarter of the size
    stored model  --read_weights--> float32 weights, which are stored as the same bytes again

A Cast (and for int8 a Mul by the scale) follows each stored weight. ONNX Runtime folds both at load, so the arithmetic
stays float32 and an answer depends neither on its neighbours in a batch nor on padding. A table that Gather reads is
not folded: only the gathered rows are widened, so the table stays small in memory too. Graph inputs and outputs keep
their names and types. Needs onnx and numpy, not torch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

# The stored parts of one weight: a float16 or int8 tensor and, for int8, its scale.
Parts = tuple[npt.NDArray[np.generic], npt.NDArray[np.float32] | None]

HALF, BYTES, SCALE = "_fp16", "_int8", "_scale"


def half_weights(model: onnx.ModelProto, least: int = 256) -> onnx.ModelProto:
    """Store each float32 weight of at least `least` numbers as float16; change and return `model`."""
    return _store(model, least, bytewise=False)


def byte_weights(model: onnx.ModelProto, least: int = 4096) -> onnx.ModelProto:
    """Store each float32 matrix of at least `least` numbers as int8; change and return `model`.

    A table that Gather reads has one scale per row. The right side of a MatMul has one per column, which is an output
    channel. scale = largest magnitude / 127, so nothing is clipped. Other weights of that size are stored as float16.
    """
    return _store(model, least, bytewise=True)


def read_weights(model: onnx.ModelProto) -> dict[str, npt.NDArray[np.float32]]:
    """Return the float32 weights of `model` under their own names, in the order of its initializers.

    Reads models that `half_weights`, `byte_weights` and `modelctl`'s `row_bytes` wrote; storing the result the same way
    gives the same bytes. Float32 initializers are returned unchanged, other types are left out.
    """
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights: dict[str, npt.NDArray[np.float32]] = {}
    for name, value in tensors.items():
        if name.endswith(HALF):
            weights[name.removesuffix(HALF)] = value.astype(np.float32)
        elif name.endswith(BYTES):
            stem = name.removesuffix(BYTES)
            weights[stem] = _widened(value, tensors[stem + SCALE])
        elif value.dtype == np.float32 and name.removesuffix(SCALE) + BYTES not in tensors:
            weights[name] = value
    return weights


def _widened(values: npt.NDArray[np.int8], scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return `values` * `scale`, rounded so that the largest magnitude of each channel / `top` is `scale` again.

    The scale was computed as largest magnitude / top. In float32, (scale * top) / top may differ from `scale` by one
    bit, so the neighbours of scale * top are tried too.
    """
    top = np.float32(max(1, np.abs(values).max()))
    largest = scale * top
    for neighbour in (np.nextafter(largest, np.float32(0)), np.nextafter(largest, np.float32(np.inf))):
        largest = np.where(largest / top == scale, largest, neighbour)
    weights: npt.NDArray[np.float32] = np.where(np.abs(values) == top, np.sign(values) * largest, values * scale)
    return weights


def _store(model: onnx.ModelProto, least: int, *, bytewise: bool) -> onnx.ModelProto:
    graph = model.graph
    tables = _used_only_as(graph, "Gather", 0)
    matrices = _used_only_as(graph, "MatMul", 1)
    kept: list[TensorProto] = []
    widened: list[NodeProto] = []
    gathered: dict[str, Parts] = {}
    for tensor in graph.initializer:
        name, weight = tensor.name, numpy_helper.to_array(tensor)
        if weight.dtype != np.float32 or weight.size < least:
            kept.append(tensor)
            continue
        channel_axis = {**dict.fromkeys(matrices, 0), **dict.fromkeys(tables, 1)}.get(name)
        fits = bytewise and weight.ndim == 2
        parts = _bytes(weight, channel_axis) if fits and channel_axis is not None else _half(weight)
        kept.extend(_tensors(name, parts))
        if name in tables:
            gathered[name] = parts
        else:
            widened.extend(_widen(name, parts, name))
    nodes = [made for node in graph.node for made in _gather(node, gathered)]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(widened + nodes)
    onnx.checker.check_model(model)
    return model


def _used_only_as(graph: onnx.GraphProto, kind: str, place: int) -> set[str]:
    """Return the names of the initializers whose every use is input number `place` of a node of this kind."""
    uses = [
        (name, node.op_type == kind and index == place) for node in graph.node for index, name in enumerate(node.input)
    ]
    others = {name for name, fits in uses if not fits} | {output.name for output in graph.output}
    return {tensor.name for tensor in graph.initializer} & {name for name, fits in uses if fits} - others


def _half(weight: npt.NDArray[np.float32]) -> Parts:
    return weight.astype(np.float16), None


def _bytes(weight: npt.NDArray[np.float32], axis: int) -> Parts:
    """Return int8 values and float32 scales, the largest magnitude along `axis` becoming 127."""
    scale = np.maximum(np.abs(weight).max(axis, keepdims=True), np.finfo(np.float32).tiny) / np.float32(127)
    return np.round(weight / scale).astype(np.int8), scale.astype(np.float32)


def _tensors(name: str, parts: Parts) -> list[TensorProto]:
    narrow, scale = parts
    if scale is None:
        return [numpy_helper.from_array(narrow, name + HALF)]
    return [numpy_helper.from_array(narrow, name + BYTES), numpy_helper.from_array(scale, name + SCALE)]


def _widen(name: str, parts: Parts, target: str) -> list[NodeProto]:
    """Return the nodes that compute the float32 tensor `target` from the stored parts named `name` + suffix."""
    if parts[1] is None:
        return [helper.make_node("Cast", [name + HALF], [target], to=TensorProto.FLOAT, name=target + "_cast")]
    rows = target + "_float"
    return [
        helper.make_node("Cast", [name + BYTES], [rows], to=TensorProto.FLOAT, name=target + "_cast"),
        helper.make_node("Mul", [rows, name + SCALE], [target], name=target + "_mul"),
    ]


def _gather(node: NodeProto, tables: dict[str, Parts]) -> list[NodeProto]:
    """Return `node`, or for a stored table the nodes that gather its rows and widen them."""
    if node.op_type != "Gather" or node.input[0] not in tables:
        return [node]
    table, indices, rows = node.input[0], node.input[1], node.output[0]
    parts = tables[table]
    picks = [HALF] if parts[1] is None else [BYTES, SCALE]
    gathers = [
        helper.make_node("Gather", [table + part, indices], [rows + part], name=rows + part, axis=0) for part in picks
    ]
    return gathers + _widen(rows, parts, rows)
