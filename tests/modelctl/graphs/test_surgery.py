"""Changes to an ONNX file keep its answers, and give it the sizes that NVIDIA's backend requires."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from networks import node, value
from onnx import TensorProto, helper

from modelctl.errors import CommandError
from modelctl.graphs import networks as graphs
from modelctl.graphs import surgery

PIXELS = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)


def shapes(path: Path) -> list[Any]:
    """Return the sizes of inputs and outputs as ONNX Runtime reads them."""
    session = graphs.session(path)
    return [port.shape for port in (*session.get_inputs(), *session.get_outputs())]


def answer(path: Path, pixels: Any = PIXELS) -> Any:
    """Return the classifier's output."""
    return next(iter(graphs.run(graphs.session(path), {"pixels": pixels}).values()))


@pytest.mark.parametrize("fixed_inside", [False, True])
def test_a_batch_of_one_is_declared_free(tmp_path: Path, fixed_inside: bool) -> None:
    """Both axes are free for every reader; items are answered as before, and batches where the graph allows."""
    path = networks.classifier(tmp_path / "net.onnx", batch=1, fixed_inside=fixed_inside)
    before = answer(path)
    assert surgery.declare(path, {"logits": [6]}) == {"logits": [6]}
    assert [shape[1:] for shape in shapes(path)] == [[3, 32, 32], [6]]
    assert not any(isinstance(shape[0], int) for shape in shapes(path))
    np.testing.assert_array_equal(answer(path), before)
    pair = np.concatenate([PIXELS, PIXELS[:, :, ::-1]])
    if fixed_inside:
        with pytest.raises(CommandError, match="cannot be run"):
            answer(path, pair)
    else:
        np.testing.assert_allclose(answer(path, pair)[0], before[0], rtol=1e-5)


def test_a_graph_older_than_slices_with_inputs_is_raised(tmp_path: Path) -> None:
    """Opset 9 has Slice with attributes only: the graph is converted, and answers as before."""
    shape = onnx.numpy_helper.from_array(np.array([1, 4], np.int64), "shape")
    graph = helper.make_graph(
        [node("Reshape", ["pixels", "shape"], ["flat"]), node("Relu", ["flat"], ["made"])],
        "old",
        [value("pixels", TensorProto.FLOAT, [1, 2, 2])],
        [value("made", TensorProto.FLOAT, [1, 4])],
        [shape],
    )
    path = tmp_path / "old.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4), path)
    assert surgery.declare(path, {"made": [4]}) == {"made": [4]}
    assert not any(isinstance(shape[0], int) for shape in shapes(path))
    given = np.array([[[1, -2], [3, -4]]], np.float32)
    assert answer(path, given).tolist() == [[1, 0, 3, 0]]


def test_a_graph_that_is_too_old_to_be_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the opset, and the one that helps. (What the converter of ONNX does not know is played.)"""

    def fail(*_: object) -> None:
        raise RuntimeError("no adapter")

    path = networks.classifier(tmp_path / "net.onnx", batch=1, fixed_inside=True)
    model = onnx.load(path)
    model.opset_import[0].version = 9
    onnx.save(model, path)
    monkeypatch.setattr("onnx.version_converter.convert_version", fail)
    with pytest.raises(CommandError) as caught:
        surgery.declare(path, {"logits": [6]})
    assert str(caught.value) == (
        "The network has a fixed batch, and its opset 9 is too old to free it: export it with a dynamic batch, or with "
        "opset 10 or later."
    )


def test_sizes_that_the_graph_knows_count_more_than_those_declared(tmp_path: Path) -> None:
    """A free size is declared as the graph computes it; if the graph leaves it open, as declared."""
    path = networks.yolo(tmp_path / "yolo.onnx", free=True)
    assert surgery.declare(path, {"output0": [-1, 16]}) == {"output0": [7, 16]}
    assert shapes(path)[1][1:] == [7, 16]


def test_a_square_is_flattened(tmp_path: Path) -> None:
    """[N, C, 1, 1] becomes [N, C] under the same name, with the same numbers."""
    path = networks.classifier(tmp_path / "square.onnx", ending="square")
    before = answer(path)
    model = onnx.load(path)
    surgery.flatten(model, "square")
    onnx.save(model, path)
    assert shapes(path)[1][1:] == [6]
    np.testing.assert_array_equal(answer(path), before[:, :, 0, 0])


def test_an_output_that_is_an_input_too_can_be_cut(tmp_path: Path) -> None:
    """An output that other operators read keeps its name for callers."""
    graph = helper.make_graph(
        [
            node("Reshape", ["pixels", "shape"], ["first"]),
            node("Relu", ["first"], ["second"]),
        ],
        "two",
        [value("pixels", TensorProto.FLOAT, [1, 2, 2])],
        [value("first", TensorProto.FLOAT, [1, 4]), value("second", TensorProto.FLOAT, [1, 4])],
        [onnx.numpy_helper.from_array(np.array([1, 4], np.int64), "shape")],
    )
    path = tmp_path / "two.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    surgery.declare(path, {"first": [4], "second": [4]})
    given = np.array([[[1, -2], [3, -4]]], np.float32)
    made = graphs.run(graphs.session(path), {"pixels": given})
    assert {name: array.tolist() for name, array in made.items()} == {
        "first": [[1, -2, 3, -4]],
        "second": [[1, 0, 3, 0]],
    }
    assert not any(isinstance(shape[0], int) for shape in shapes(path))
