"""Small ONNX networks whose outputs are not what a task expects: no batch, no declared shape, bytes for numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
from networks import node, value, weights
from onnx import TensorProto

SIZE, ROWS = 32, 16


def cells(path: Path, ranks: tuple[int, ...] = (7, 2)) -> Path:
    """Write one picture [1, 3, 32, 32] -> rows of 16 cells, [16, K] for each K: many heads without a batch."""
    constants: dict[str, Any] = {}
    nodes = [node("AveragePool", ["input"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8])]
    outputs = []
    for number, rank in enumerate(ranks):
        constants |= {f"w{number}": weights(rank, 3, 1, 1, seed=number), f"s{number}": np.array([ROWS, rank], np.int64)}
        nodes += [
            node("Conv", ["pooled", f"w{number}"], [f"raw{number}"]),
            node("Transpose", [f"raw{number}"], [f"last{number}"], perm=[0, 2, 3, 1]),
            node("Reshape", [f"last{number}", f"s{number}"], [f"out{number}"]),
        ]
        outputs.append(value(f"out{number}", TensorProto.FLOAT, [ROWS, rank]))
    return networks.save(path, nodes, [value("input", TensorProto.FLOAT, [1, 3, SIZE, SIZE])], outputs, constants)


def yolo_rows(path: Path, classes: int = 3) -> Path:
    """Write a YOLOv8 head of a network for one picture whose file drops the batch: [4 + classes, cells]."""
    networks.yolo(path, classes=classes)
    model = onnx.load(path)
    name = model.graph.output[0].name
    for item in model.graph.node:
        item.output[:] = ["led" if each == name else each for each in item.output]
    cells = model.graph.output[0].type.tensor_type.shape.dim[2].dim_value
    constants = [onnx.numpy_helper.from_array(np.array([0], np.int64), "first")]
    model.graph.initializer.extend(constants)
    model.graph.node.append(node("Squeeze", ["led", "first"], [name]))
    del model.graph.output[:]
    model.graph.output.append(value(name, TensorProto.FLOAT, [4 + classes, cells]))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, path)
    return path


def undeclared(path: Path) -> Path:
    """Write a classifier of 6 classes whose output has no declared shape, for pictures of any size."""
    networks.any_size(path)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    return path


def found(path: Path) -> Path:
    """Write a picture -> the cells [K, 2] that are bright: as many rows as the picture makes."""
    nodes = [
        node("AveragePool", ["input"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        node("ReduceMean", ["pooled"], ["grey"], axes=[0, 1], keepdims=0),
        node("Greater", ["grey", "half"], ["bright"]),
        node("NonZero", ["bright"], ["places"]),
        node("Transpose", ["places"], ["cells"], perm=[1, 0]),
        node("Cast", ["cells"], ["rows"], to=TensorProto.FLOAT),
    ]
    return networks.save(
        path,
        nodes,
        [value("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [value("rows", TensorProto.FLOAT, ["K", 2])],
        {"half": np.float32(0.5)},
    )


def quantized(path: Path, how: str, classes: int = 6) -> Path:
    """Write UINT8 pictures [N, 32, 32, 3] -> probabilities in bytes.

    `how`: "scale" and "signed" end in QuantizeLinear of 1/256 (UINT8, INT8), "bytes" in a Cast without a scale, "real"
    in such values as FP32, "logits" in QuantizeLinear of logits, "tenth" in bytes that sum to about 25.
    """
    zero = np.int8(-128) if how == "signed" else np.uint8(128 if how == "logits" else 0)
    constants: dict[str, Any] = {
        "w": weights(classes, 3, 1, 1, spread=3.0),
        "scale": np.float32(0.1 if how == "logits" else 1 / 256),
        "zero": zero,
        "byte": np.float32(1 / 255),
        "all": np.float32(25 if how == "tenth" else 256),
        "most": np.float32(255),
        "least": np.float32(0),
    }
    nodes = [
        node("Cast", ["pixels"], ["real"], to=TensorProto.FLOAT),
        node("Mul", ["real", "byte"], ["unit"]),
        node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        node("Conv", ["planes", "w"], ["maps"]),
        node("GlobalAveragePool", ["maps"], ["means"]),
        node("Flatten", ["means"], ["flat"], axis=1),
        node("Softmax", ["flat"], ["sure"], axis=1),
    ]
    kind = {"signed": TensorProto.INT8, "real": TensorProto.FLOAT}.get(how, TensorProto.UINT8)
    if how in ("scale", "signed", "logits"):
        nodes.append(node("QuantizeLinear", ["flat" if how == "logits" else "sure", "scale", "zero"], ["whole"]))
        nodes.append(node("Identity", ["whole"], ["scores"]))
    else:
        nodes += [
            node("Mul", ["sure", "all"], ["large"]),
            node("Round", ["large"], ["round"]),
            node("Clip", ["round", "least", "most"], ["cut"]),
            node("Cast", ["cut"], ["scores"], to=kind),
        ]
    inputs = [value("pixels", TensorProto.UINT8, ["N", SIZE, SIZE, 3])]
    return networks.save(path, nodes, inputs, [value("scores", kind, ["N", classes])], constants)


def cellwise(path: Path, cell: int = 32) -> Path:
    """A map for pictures whose sides are multiples of a cell: what each cell holds on average is added to it."""
    nodes = [
        node("AveragePool", ["input"], ["means"], kernel_shape=[cell, cell], strides=[cell, cell]),
        node("Resize", ["means", "", "scales"], ["spread"], mode="nearest"),
        node("Add", ["input", "spread"], ["map"]),
    ]
    shape = ["batch", 3, "height", "width"]
    ports = [value(name, TensorProto.FLOAT, shape) for name in ("input", "map")]
    return networks.save(path, nodes, ports[:1], ports[1:], {"scales": np.array([1, 1, cell, cell], np.float32)})
