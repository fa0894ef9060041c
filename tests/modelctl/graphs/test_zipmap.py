"""Outputs of classical classifiers that Triton cannot serve are cut; scores and class names stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import node, value, weights
from onnx import TensorProto, helper, numpy_helper

from modelctl.graphs import networks, zipmap

NAMES = [b"cat", b"dog", b"no  animal"]
FEATURES = np.random.default_rng(0).random((2, 4), np.float32)


def classifier(path: Path, *, ending: str = "ZipMap", integers: bool = False, best: bool = True) -> Path:
    """Write FP32 [N, 4] -> probabilities of 3 classes, as a map or as numbers, and the best class.

    Args:
        path: of the file.
        ending: `ZipMap`, or `numbers`.
        integers: whether classes are numbers.
        best: whether the best class is an output too.

    """
    keys = {"classlabels_int64s": [3, 5, 9]} if integers else {"classlabels_strings": NAMES}
    kind = TensorProto.INT64 if integers else TensorProto.STRING
    table = np.array([3, 5, 9]) if integers else np.array(NAMES, np.object_)
    nodes = [
        node("MatMul", ["x", "w"], ["raw"]),
        node("Softmax", ["raw"], ["scores"], axis=-1),
        node("ArgMax", ["scores"], ["place"], axis=1, keepdims=0),
        node("Gather", ["table", "place"], ["best"]),
    ]
    outputs = [value("best", kind, ["N"])] if best else []
    if ending == "ZipMap":
        nodes.append(helper.make_node("ZipMap", ["scores"], ["loss"], domain="ai.onnx.ml", **keys))
        entry = onnx.ValueInfoProto(name="loss")
        entry.type.sequence_type.elem_type.map_type.key_type = kind
        entry.type.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
        outputs.append(entry)
    else:
        outputs.append(value("scores", TensorProto.FLOAT, ["N", 3]))
    constants = [numpy_helper.from_array(weights(4, 3), "w"), numpy_helper.from_array(table, "table")]
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, ["N", 4])], outputs, constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def run(path: Path) -> Any:
    """Run a file on the features; its outputs in order."""
    return onnxruntime.InferenceSession(str(path)).run(None, {"x": FEATURES})


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("best", [False, True])
def test_a_map_becomes_its_scores(tmp_path: Path, integers: bool, best: bool) -> None:
    """The scores [N, C] are the only output, in the order of the names; nothing that served the rest is left."""
    path = classifier(tmp_path / "net.onnx", integers=integers, best=best)
    made = zipmap.cut(path, tmp_path)
    maps = run(path)[-1]
    (scores,) = run(made.path)
    assert made.labels == (["3", "5", "9"] if integers else ["cat", "dog", "no animal"])
    for row, expected in zip(scores, maps, strict=True):
        assert row.tolist() == list(expected.values())
    graph = networks.load(made.path).graph
    assert [entry.name for entry in graph.output] == ["scores"]
    assert [node.op_type for node in graph.node] == ["MatMul", "Softmax"]
    assert [tensor.name for tensor in graph.initializer] == ["w"]
    assert networks.ports(onnx.load(made.path))[1][0].shape == (None, 3)
    assert made.notes[0] == "The output 'loss', a map from names to scores, is served as its scores."
    assert ("The output 'best', which is the best class, is left out." in made.notes) == best


def test_the_name_of_the_best_class_is_left_out_beside_scores(tmp_path: Path) -> None:
    """A STRING output cannot be served; an integer one can, and stays."""
    made = zipmap.cut(classifier(tmp_path / "net.onnx", ending="numbers"), tmp_path)
    assert [port.name for port in networks.ports(networks.load(made.path))[1]] == ["scores"]
    assert made.notes == ["The output 'best', which is the best class, is left out."]
    kept = zipmap.cut(classifier(tmp_path / "whole.onnx", ending="numbers", integers=True), tmp_path)
    assert (kept.path, kept.notes) == (tmp_path / "whole.onnx", [])
