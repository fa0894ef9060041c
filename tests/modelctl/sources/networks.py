"""Small ONNX networks, each a few operators with weights of chance, whose answers depend on every part of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR = 17, 8
TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def weights(*shape: int, spread: float = 1.0, seed: int = 3) -> Any:
    """Return normally distributed numbers."""
    return (np.random.default_rng(seed).standard_normal(shape) * spread).astype(np.float32)


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    constants: dict[str, Any],
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a checked network."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "network", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def value(name: str, kind: Any, shape: Sequence[int | str]) -> Any:
    """Return an input's or output's declaration."""
    return helper.make_tensor_value_info(name, kind, shape)


node = helper.make_node


def classifier(
    path: Path,
    *,
    classes: int = 6,
    size: int = 32,
    dtype: str = "float32",
    batch: int | str = "N",
    ending: str = "logits",
    fixed_inside: bool = False,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write [N, 3, size, size] -> mean of 4 x 4 fields -> classes.

    Args:
        path: of the file.
        classes: how many.
        size: of the picture.
        dtype: of input and output.
        batch: as declared on both.
        ending: `logits` [N, C], `square` [N, C, 1, 1], `probabilities` [N, C], or `sigmoid` [N, C].
        fixed_inside: whether a constant in the graph fixes the batch to one.
        metadata: of the file.

    """
    cast = np.dtype(dtype).type
    field = size // 4
    spread = 4 / np.sqrt(48)
    constants = {"w": weights(classes, 3, 4, 4, spread=spread * 2).astype(cast), "b": weights(classes).astype(cast)}
    nodes = [
        node("AveragePool", ["pixels"], ["pooled"], kernel_shape=[field, field], strides=[field, field]),
        node("Conv", ["pooled", "w", "b"], ["square"]),
    ]
    last = "square"
    if ending != "square":
        if fixed_inside:
            constants["shape"] = np.array([1, classes], np.int64)
            nodes.append(node("Reshape", ["square", "shape"], ["logits"]))
        else:
            nodes.append(node("Flatten", ["square"], ["logits"]))
        last = "logits"
    if ending == "probabilities":
        nodes.append(node("Softmax", ["logits"], ["probabilities"], axis=-1))
        last = "probabilities"
    if ending == "sigmoid":
        nodes.append(node("Sigmoid", ["logits"], ["scores"]))
        last = "scores"
    shape: list[int | str] = [batch, classes, 1, 1] if last == "square" else [batch, classes]
    inputs = [value("pixels", TYPES[dtype], [batch, 3, size, size])]
    return save(path, nodes, inputs, [value(last, TYPES[dtype], shape)], constants, metadata)


def any_size(path: Path, *, classes: int = 6) -> Path:
    """Write [N, 3, height, width] -> the mean of all pixels -> logits [N, classes], for pictures of every size."""
    constants = {"w": weights(classes, 3, 1, 1, spread=3.0), "b": weights(classes, spread=0.3)}
    nodes = [
        node("GlobalAveragePool", ["pixels"], ["pooled"]),
        node("Conv", ["pooled", "w", "b"], ["square"]),
        node("Flatten", ["square"], ["logits"]),
    ]
    inputs = [value("pixels", TensorProto.FLOAT, ["N", 3, "height", "width"])]
    return save(path, nodes, inputs, [value("logits", TensorProto.FLOAT, ["N", classes])], constants)


def bytes_classifier(path: Path, *, classes: int, height: int, width: int) -> Path:
    """Write UINT8 [N, height, width, 3] -> mean of 4 x 4 pixels -> logits [N, classes]."""
    constants = {
        "factor": np.float32(1 / 255),
        "w": weights(classes, 3, height // 4, width // 4, spread=0.6),
        "b": weights(classes, spread=0.3),
    }
    nodes = [
        node("Cast", ["pixels"], ["numbers"], to=TensorProto.FLOAT),
        node("Mul", ["numbers", "factor"], ["small"]),
        node("Transpose", ["small"], ["planes"], perm=[0, 3, 1, 2]),
        node("AveragePool", ["planes"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        node("Conv", ["pooled", "w", "b"], ["square"]),
        node("Flatten", ["square"], ["scores"]),
    ]
    inputs = [value("pixels", TensorProto.UINT8, ["N", height, width, 3])]
    return save(path, nodes, inputs, [value("scores", TensorProto.FLOAT, ["N", classes])], constants)


def yolox(path: Path, *, classes: int = 3, size: int = 64, strides: Sequence[int] = (8, 16, 32)) -> Path:
    """Write BGR pixels of 0 to 255 [N, 3, size, size] -> YOLOX's raw head [N, cells, 5 + classes]."""
    constants: dict[str, Any] = {"all": np.array([0, 5 + classes, -1], np.int64)}
    nodes, parts = [], []
    for stride in strides:
        rows = np.array([0.002] * 4 + [0.012] * (1 + classes), np.float32)
        constants[f"w{stride}"] = weights(5 + classes, 3, 1, 1, seed=stride) * rows[:, None, None, None]
        # Fields of one colour must not tie: which of them suppresses the other would be chance.
        constants[f"place{stride}"] = weights(1, 1 + classes, (size // stride) ** 2, spread=0.3, seed=stride)
        constants[f"b{stride}"] = np.array([0.5, 0.5, 0.3, 0.4, 0.5, *weights(classes)], np.float32)
        kinds = ("pooled", "w", "b", "raw", "flat", "box", "seen", "place", "placed", "sure", "part")
        names = {name: f"{name}{stride}" for name in kinds}
        nodes += [
            node("AveragePool", ["images"], [names["pooled"]], kernel_shape=[stride] * 2, strides=[stride] * 2),
            node("Conv", [names["pooled"], names["w"], names["b"]], [names["raw"]]),
            node("Reshape", [names["raw"], "all"], [names["flat"]]),
            node("Split", [names["flat"], "parts"], [names["box"], names["seen"]], axis=1),
            node("Add", [names["seen"], names["place"]], [names["placed"]]),
            node("Sigmoid", [names["placed"]], [names["sure"]]),
            node("Concat", [names["box"], names["sure"]], [names["part"]], axis=1),
        ]
        parts.append(names["part"])
    constants["parts"] = np.array([4, 1 + classes], np.int64)
    nodes += [node("Concat", parts, ["cells"], axis=2), node("Transpose", ["cells"], ["output"], perm=[0, 2, 1])]
    cells = sum((size // stride) ** 2 for stride in strides)
    inputs = [value("images", TensorProto.FLOAT, ["batch", 3, size, size])]
    return save(path, nodes, inputs, [value("output", TensorProto.FLOAT, ["batch", cells, 5 + classes])], constants)


def yolo(
    path: Path,
    *,
    classes: int = 3,
    size: int = 64,
    stride: int = 16,
    free: bool = False,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write RGB of 0 to 1 [N, 3, size, size] -> YOLOv8's head [N, 4 + classes, cells], boxes in pixels."""
    cells = size // stride
    centres = (np.arange(cells) + 0.5) * stride
    grid = np.stack([np.tile(centres, cells), np.repeat(centres, cells), *[np.full(cells * cells, 24.0)] * 2])
    constants = {
        "w": weights(4 + classes, 3, 1, 1, spread=3.0),
        "b": np.array([0, 0, 0, 0, *weights(classes) - 0.5], np.float32),
        "all": np.array([0, 4 + classes, -1], np.int64),
        "parts": np.array([4, classes], np.int64),
        "grid": grid[None].astype(np.float32),
    }
    nodes = [
        node("AveragePool", ["images"], ["pooled"], kernel_shape=[stride] * 2, strides=[stride] * 2),
        node("Conv", ["pooled", "w", "b"], ["raw"]),
        node("Reshape", ["raw", "all"], ["flat"]),
        node("Split", ["flat", "parts"], ["offsets", "scores"], axis=1),
        node("Add", ["offsets", "grid"], ["boxes"]),
        node("Sigmoid", ["scores"], ["sure"]),
        node("Concat", ["boxes", "sure"], ["output0"], axis=1),
    ]
    sides: list[int | str] = ["height", "width"] if free else [size, size]
    inputs = [value("images", TensorProto.FLOAT, ["batch", 3, *sides])]
    anchors = "anchors" if free else cells * cells
    return save(
        path, nodes, inputs, [value("output0", TensorProto.FLOAT, ["batch", 4 + classes, anchors])], constants, metadata
    )


def end_to_end(path: Path, *, classes: int = 3, size: int = 64, stride: int = 16) -> Path:
    """Write RGB of 0 to 1 [N, 3, size, size] -> what NMS leaves [N, cells, 6]: corners, score, class."""
    cells = size // stride
    centres = (np.arange(cells) + 0.5) * stride
    grid = np.stack([np.tile(centres, cells), np.repeat(centres, cells)])
    constants = {
        "w": weights(5, 3, 1, 1, spread=3.0),
        "b": np.array([0, 0, 0, 0, 1.5], np.float32),
        "all": np.array([0, 5, -1], np.int64),
        "parts": np.array([4, 1], np.int64),
        "grid": np.concatenate([grid - 12, grid + 12])[None].astype(np.float32),
        "nothing": np.float32(0),
        "classes": (np.arange(cells * cells) % classes)[None, None].astype(np.float32),
    }
    nodes = [
        node("AveragePool", ["images"], ["pooled"], kernel_shape=[stride] * 2, strides=[stride] * 2),
        node("Conv", ["pooled", "w", "b"], ["raw"]),
        node("Reshape", ["raw", "all"], ["flat"]),
        node("Split", ["flat", "parts"], ["offsets", "scores"], axis=1),
        node("Add", ["offsets", "grid"], ["corners"]),
        node("Sigmoid", ["scores"], ["sure"]),
        node("Mul", ["scores", "nothing"], ["zeros"]),
        node("Add", ["zeros", "classes"], ["kinds"]),
        node("Concat", ["corners", "sure", "kinds"], ["columns"], axis=1),
        node("Transpose", ["columns"], ["found"], perm=[0, 2, 1]),
    ]
    inputs = [value("images", TensorProto.FLOAT, ["batch", 3, size, size])]
    return save(path, nodes, inputs, [value("found", TensorProto.FLOAT, ["batch", cells * cells, 6])], constants)


def two_towers(path: Path) -> Path:
    """Write `a` FP32 [N, 3] and `index` INT64 [N, L] -> `sum` [N, 3] and `picked` [N, L]: no task that we know."""
    nodes = [
        node("MatMul", ["a", "w"], ["sum"]),
        node("Gather", ["table", "index"], ["picked"]),
    ]
    inputs = [value("a", TensorProto.FLOAT, ["N", 3]), value("index", TensorProto.INT64, ["N", "L"])]
    outputs = [value("sum", TensorProto.FLOAT, ["N", 3]), value("picked", TensorProto.FLOAT, ["N", "L"])]
    return save(path, nodes, inputs, outputs, {"w": weights(3, 3), "table": weights(8)})


def reader(
    path: Path, *, vocabulary: int, classes: int = 3, masked: bool = True, kind: int = TensorProto.INT64
) -> Path:
    """Write tokens [N, L] -> the mean of their embeddings -> logits [N, classes]; without a mask padding counts."""
    constants = {
        "table": weights(vocabulary, 5, spread=2.0),
        "w": weights(5, classes, spread=2.0),
        "axis": np.array([1], np.int64),
        "last": np.array([2], np.int64),
    }
    mask = [
        node("Cast", ["attention_mask"], ["ones"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["ones", "last"], ["columns"]),
        node("Mul", ["vectors", "columns"], ["kept"]),
        node("ReduceSum", ["kept", "axis"], ["total"], keepdims=0),
        node("ReduceSum", ["ones", "axis"], ["count"], keepdims=1),
        node("Div", ["total", "count"], ["mean"]),
    ]
    nodes = [
        node("Gather", ["table", "input_ids"], ["vectors"]),
        *(mask if masked else [node("ReduceMean", ["vectors"], ["mean"], axes=[1], keepdims=0)]),
        node("MatMul", ["mean", "w"], ["logits"]),
    ]
    names = ("input_ids", "attention_mask") if masked else ("input_ids",)
    inputs = [value(name, kind, ["batch", "length"]) for name in names]
    return save(path, nodes, inputs, [value("logits", TensorProto.FLOAT, ["batch", classes])], constants)


def grey_classifier(
    path: Path, *, last: bool = False, dynamic: bool = False, metadata: dict[str, str] | None = None
) -> Path:
    """Write grey pixels of 0 to 255 [N, 1, 32, 32] -> mean of 4 x 4 fields -> logits [N, 6].

    Args:
        path: of the file.
        last: whether the channel is the last axis: [N, 32, 32, 1].
        dynamic: whether the pooled values are quantised as the network runs, by their own range.
        metadata: of the exporter.

    """
    constants = {"w": weights(6, 1, 8, 8, spread=0.004), "b": weights(6)}
    nodes = [node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2])] if last else []
    nodes += [node("AveragePool", ["planes" if last else "pixels"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4])]
    if dynamic:
        nodes += [
            node("DynamicQuantizeLinear", ["pooled"], ["bytes", "step", "zero"]),
            node("DequantizeLinear", ["bytes", "step", "zero"], ["rounded"]),
        ]
    nodes += [
        node("Conv", ["rounded" if dynamic else "pooled", "w", "b"], ["square"]),
        node("Flatten", ["square"], ["scores"]),
    ]
    shape = ["N", 32, 32, 1] if last else ["N", 1, 32, 32]
    inputs = [value("pixels", TensorProto.FLOAT, shape)]
    return save(path, nodes, inputs, [value("scores", TensorProto.FLOAT, ["N", 6])], constants, metadata)
