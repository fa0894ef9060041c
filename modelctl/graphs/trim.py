"""Lets a text network cut its own padding, so that texts of every length share one batch.

Triton batches only requests of equal shapes, so the tokenizer step pads every text to the same length; without this
surgery a text of 5 tokens would cost as much as one of 128. In front of the graph stands

    longest = max(1, max over the batch of sum(INT64(attention_mask)))
    ids, mask = ids[:, :longest], mask[:, :longest]

and all later nodes read the slices. A lone text costs its own length, a batch that of its longest text. Graph inputs
keep names, types and shapes. All nodes are standard ONNX and named `trim/...`.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

PREFIX = "trim/"
MASK = "attention_mask"
TRIMMED = ("input_ids", MASK, "token_type_ids")


def trim_to_longest(model: onnx.ModelProto) -> onnx.ModelProto:
    """Cut the padding of a whole batch at the graph's start; change and return `model`.

    The inputs named in TRIMMED that the graph has are INT64 or INT32 [N, L], padded on the right, with 1 in
    `attention_mask` for real tokens. The network's answer must not depend on padding, and its outputs must have no axis
    of length L.

    Raises:
        ValueError: when there is no `attention_mask`, or when the model is trimmed already.

    """
    graph = model.graph
    names = [entry.name for entry in graph.input if entry.name in TRIMMED]
    if MASK not in names:
        raise ValueError(f"the graph has no input '{MASK}'")
    if is_trimmed(model):
        raise ValueError("the graph is trimmed already")
    for node in graph.node:
        node.input[:] = [PREFIX + name if name in names else name for name in node.input]
    nodes = [
        *_longest(next(entry.type.tensor_type.elem_type for entry in graph.input if entry.name == MASK)),
        *(_slice(name) for name in names),
        *graph.node,
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(_constants())
    onnx.checker.check_model(model)
    return model


def is_trimmed(model: onnx.ModelProto) -> bool:
    """Tell whether `trim_to_longest` has changed a network, such as one that `modelctl add` has stored."""
    return any(node.name.startswith(PREFIX) for node in model.graph.node)


def untrim(model: onnx.ModelProto) -> onnx.ModelProto:
    """Undo `trim_to_longest`, for runtimes that need shapes before they see data; change and return `model`."""
    graph = model.graph
    nodes = [node for node in graph.node if not node.name.startswith(PREFIX)]
    for node in nodes:
        node.input[:] = [name.removeprefix(PREFIX) for name in node.input]
    tensors = [tensor for tensor in graph.initializer if not tensor.name.startswith(PREFIX)]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    onnx.checker.check_model(model)
    return model


def _constants() -> list[TensorProto]:
    values = {"zero": 0, "one": 1}
    return [numpy_helper.from_array(np.array([value], np.int64), PREFIX + name) for name, value in values.items()]


def _longest(mask_type: int) -> list[NodeProto]:
    """Return the nodes that make `trim/longest`, INT64 [1]."""
    mask, cast = MASK, []
    if mask_type != TensorProto.INT64:
        mask = PREFIX + "mask"
        cast = [helper.make_node("Cast", [MASK], [mask], mask, to=TensorProto.INT64)]
    # Without axes ReduceMax reduces all of them, and is valid before opset 18 and after.
    return [
        *cast,
        helper.make_node("ReduceSum", [mask, PREFIX + "one"], [PREFIX + "lengths"], PREFIX + "lengths", keepdims=0),
        helper.make_node("ReduceMax", [PREFIX + "lengths"], [PREFIX + "most"], PREFIX + "most", keepdims=1),
        helper.make_node("Max", [PREFIX + "most", PREFIX + "one"], [PREFIX + "longest"], PREFIX + "longest"),
    ]


def _slice(name: str) -> NodeProto:
    ends = [PREFIX + part for part in ("zero", "longest", "one")]
    return helper.make_node("Slice", [name, *ends], [PREFIX + name], PREFIX + name)
