"""Puts the recipe of a network's pictures in front of its graph, which then takes the pixels themselves.

    UINT8 [N, height, width, 3], RGB --Cast--> FP32 --Transpose--> NCHW --Gather--> BGR --Mul, Add--> the former input

A quarter of the bytes then crosses the processes of preprocess step, Triton and network. The arithmetic is that of
`stages.imaging.normalise`, in FP32 and in the same order, so answers stay the same; a network of FP16 gets a last Cast.

The Cast comes first, because nothing else may read an UINT8 input in TensorRT (github.com/NVIDIA/TensorRT/issues/3985).
Constants are nodes: graphs of IR version 3 would have to declare initializers as inputs. All nodes are standard ONNX
and named `fold/...`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from modelctl.errors import CommandError

PREFIX = "fold/"
OLDEST_BROADCAST = 7
"""The opset since which Mul and Add broadcast as numpy does."""
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class Recipe:
    """What a network expects: (x * scale - mean) / std, its channels and axes in this order."""

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    channel_order: str = "RGB"
    layout: str = "NCHW"


def fold(model: onnx.ModelProto, name: str, recipe: Recipe) -> onnx.ModelProto:
    """Let the input `name` take UINT8 [N, height, width, 3] in RGB; change and return `model`.

    Raises:
        CommandError: when the graph does not allow it; `model` is unchanged then.

    """
    graph = model.graph
    entry = next(entry for entry in graph.input if entry.name == name)
    _require_foldable(model, entry)
    inside = PREFIX + name
    for node in graph.node:
        _rename(node, name, inside)
    nodes = [*_front(name, inside, recipe, entry.type.tensor_type.elem_type), *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    tensor = entry.type.tensor_type
    tensor.elem_type = TensorProto.UINT8
    if recipe.layout == "NCHW":
        sizes = [onnx.TensorShapeProto.Dimension.FromString(size.SerializeToString()) for size in tensor.shape.dim]
        del tensor.shape.dim[:]
        tensor.shape.dim.extend(sizes[place] for place in (0, 2, 3, 1))
    return model


def front(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return the folded part of a graph as a network of its own: `name` -> what the other nodes read."""
    entry = next(entry for entry in model.graph.input if entry.name == name)
    nodes = [node for node in model.graph.node if node.name.startswith(PREFIX)]
    casts = [node.attribute[0].i for node in nodes if node.op_type == "Cast"]
    made = helper.make_tensor_value_info(PREFIX + name, casts[-1], [None] * 4)
    graph = helper.make_graph(nodes, "front", [entry], [made])
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _require_foldable(model: onnx.ModelProto, entry: onnx.ValueInfoProto) -> None:
    opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    if opset < OLDEST_BROADCAST:
        raise CommandError(f"its opset {opset} is older than {OLDEST_BROADCAST}")
    if entry.type.tensor_type.elem_type not in FLOATS or len(entry.type.tensor_type.shape.dim) != 4:
        raise CommandError(f"its input '{entry.name}' is not a batch of pictures in FP32 or FP16")
    if any(one.name == entry.name for one in model.graph.output):
        raise CommandError(f"its input '{entry.name}' is an output too")
    if any(name.startswith(PREFIX) for node in model.graph.node for name in (node.name, *node.output)):
        raise CommandError(f"it has nodes named {PREFIX}... already")


def _rename(node: NodeProto, old: str, new: str) -> None:
    """Let a node read another tensor, and the branches and loop bodies in it too."""
    node.input[:] = [new if name == old else name for name in node.input]
    for inner in _subgraphs(node):
        for one in inner.node:
            _rename(one, old, new)


def _subgraphs(node: NodeProto) -> Iterable[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _front(name: str, inside: str, recipe: Recipe, element: int) -> list[NodeProto]:
    """Return the nodes between the input `name` and the tensor `inside`, which has the type `element`."""
    planes = recipe.layout == "NCHW"
    std = np.asarray(recipe.std)
    factor = _constant(recipe.scale / std, planes)
    offset = _constant(-np.asarray(recipe.mean) / std, planes)
    steps: list[tuple[str, str, npt.NDArray[Any] | None, dict[str, Any]]] = [
        ("Cast", "float", None, {"to": TensorProto.FLOAT})
    ]
    if planes:
        steps.append(("Transpose", "planes", None, {"perm": [0, 3, 1, 2]}))
    if recipe.channel_order == "BGR":  # of whole planes, where there are any: a copy of large blocks
        steps.append(("Gather", "order", np.array([2, 1, 0], np.int64), {"axis": 1 if planes else 3}))
    if (factor != 1).any():
        steps.append(("Mul", "scaled", factor, {}))
    if offset.any():
        steps.append(("Add", "shifted", offset, {}))
    if element != TensorProto.FLOAT:
        steps.append(("Cast", "narrow", None, {"to": element}))
    nodes, last = [], name
    for number, (kind, title, constant, attributes) in enumerate(steps, 1):
        made = inside if number == len(steps) else f"{PREFIX}{title}"
        given = [last]
        if constant is not None:
            given.append(f"{PREFIX}{title}/value")
            value = numpy_helper.from_array(constant, given[1])
            nodes.append(helper.make_node("Constant", [], given[1:], given[1], value=value))
        nodes.append(helper.make_node(kind, given, [made], f"{PREFIX}{title}", **attributes))
        last = made
    return nodes


def _constant(values: npt.NDArray[np.float64], planes: bool) -> npt.NDArray[np.float32]:
    """Return one value per channel, shaped for the layout; a single value where all are equal, which is faster."""
    numbers = values.astype(np.float32)
    if len(set(numbers.tolist())) == 1:
        return np.asarray(numbers[0])
    return numbers[:, None, None] if planes else numbers
