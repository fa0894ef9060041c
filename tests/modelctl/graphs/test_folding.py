"""A recipe that is folded into a graph is computed as the steps compute it, and the rest of the graph stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from networks import node, value
from onnx import TensorProto, helper, numpy_helper

from modelctl.errors import CommandError
from modelctl.graphs import folding, surgery
from modelctl.graphs import networks as graphs
from modelctl.graphs.folding import Recipe
from stages import imaging

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RECIPES = (
    Recipe(1 / 255, MEAN, STD),
    Recipe(1 / 255),
    Recipe(1.0),
    Recipe(1.0, (103.53, 116.28, 123.675), (57.375, 57.12, 58.395), "BGR"),
    Recipe(1.0, channel_order="BGR"),
    Recipe(1 / 127.5, (1.0,) * 3, layout="NHWC"),
    Recipe(1 / 255, MEAN, STD, "BGR", "NHWC"),
)
# Every value in every channel, and no two channels, rows or columns alike.
PIXELS = np.random.default_rng(0).permuted(np.tile(np.arange(256, dtype=np.uint8), (3, 5)), axis=1)
PIXELS = np.ascontiguousarray(PIXELS.T.reshape(1, 32, 40, 3))


def passing(layout: str, kind: int = TensorProto.FLOAT, opset: int = 17, ir: int = 8) -> onnx.ModelProto:
    """Return a graph that gives its input back."""
    shape = ["N", 3, 32, 40] if layout == "NCHW" else ["N", 32, 40, 3]
    inputs, outputs = [value("x", kind, shape)], [value("y", kind, shape)]
    graph = helper.make_graph([node("Identity", ["x"], ["y"])], "passing", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def run(model: onnx.ModelProto, pixels: Any, name: str = "x") -> Any:
    """Return the first output of a checked graph."""
    onnx.checker.check_model(model, full_check=True)
    return next(iter(graphs.run(graphs.session(model), {name: pixels}).values()))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_graph_computes_what_the_step_computed(recipe: Recipe, kind: int) -> None:
    """All 256 values in all channels are equal to the last bit, and equal to the plain formula."""
    made = run(folding.fold(passing(recipe.layout, kind), "x", recipe), PIXELS)
    how = {"channel_order": recipe.channel_order, "layout": recipe.layout}
    step = imaging.Recipe(40, 32, "stretch", scale=recipe.scale, mean=recipe.mean, std=recipe.std, **how)
    np.testing.assert_array_equal(made[0], imaging.normalise(PIXELS[0], step).astype(made.dtype))
    ordered = PIXELS[..., ::-1] if recipe.channel_order == "BGR" else PIXELS
    plain = (ordered * recipe.scale - np.array(recipe.mean)) / np.array(recipe.std)
    plain = plain.transpose(0, 3, 1, 2) if recipe.layout == "NCHW" else plain
    np.testing.assert_allclose(made, plain, rtol=1e-6 if kind == TensorProto.FLOAT else 1e-3, atol=2e-6)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_only_a_cast_reads_the_bytes(recipe: Recipe) -> None:
    """TensorRT takes UINT8 inputs for nothing else."""
    model = folding.fold(passing(recipe.layout), "x", recipe)
    assert [one.op_type for one in model.graph.node if "x" in one.input] == ["Cast"]
    (entry,) = model.graph.input
    assert (entry.name, entry.type.tensor_type.elem_type) == ("x", TensorProto.UINT8)


def test_answers_stay_equal(tmp_path: Path) -> None:
    """A network gives the same numbers, to the last bit, for pixels as for normalised pictures, in batches too."""
    model = onnx.load(networks.classifier(tmp_path / "net.onnx"))
    recipe = Recipe(1 / 255, MEAN, STD)
    pixels = np.concatenate([PIXELS[:, :, :32], PIXELS[:, :, 8:]])
    step = imaging.Recipe(32, 32, "stretch", mean=MEAN, std=STD)
    before = run(model, np.stack([imaging.normalise(one, step) for one in pixels]), "pixels")
    np.testing.assert_array_equal(run(folding.fold(model, "pixels", recipe), pixels, "pixels"), before)


def test_free_sizes_stay_free_and_the_front_runs_alone(tmp_path: Path) -> None:
    model = folding.fold(onnx.load(networks.any_size(tmp_path / "free.onnx")), "pixels", Recipe())
    assert graphs.session(model).get_inputs()[0].shape == ["N", "height", "width", 3]
    front = folding.front(model, "pixels")
    made = run(front, PIXELS, "pixels")
    np.testing.assert_allclose(made, PIXELS.transpose(0, 3, 1, 2) / 255, rtol=1e-6)


def test_branches_read_the_prepared_picture_too() -> None:
    """A node in a branch of If reads the input from outside."""
    branches = {
        name: helper.make_graph([node(kind, ["x"], [name])], name, [], [value(name, TensorProto.FLOAT, None)])
        for name, kind in (("then_branch", "Neg"), ("else_branch", "Abs"))
    }
    graph = helper.make_graph(
        [node("If", ["yes"], ["y"], **branches)],
        "branches",
        [value("x", TensorProto.FLOAT, ["N", 3, 32, 40])],
        [value("y", TensorProto.FLOAT, ["N", 3, 32, 40])],
        [numpy_helper.from_array(np.array(True), "yes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = run(folding.fold(model, "x", Recipe()), PIXELS)
    np.testing.assert_allclose(made, PIXELS.transpose(0, 3, 1, 2) / -255, rtol=1e-6)


@pytest.mark.parametrize(("opset", "ir"), [(7, 3), (13, 7)])
def test_older_graphs_are_folded(opset: int, ir: int) -> None:
    """Graphs of IR version 3 must declare initializers as inputs: there are none."""
    model = folding.fold(passing("NCHW", opset=opset, ir=ir), "x", RECIPES[0])
    assert len(model.graph.input) == 1
    assert run(model, PIXELS).shape == (1, 3, 32, 40)


def test_a_fixed_batch_is_freed_after_folding(tmp_path: Path) -> None:
    """Both surgeries change the input: neither takes the other's work away."""
    path = networks.classifier(tmp_path / "net.onnx", batch=1, fixed_inside=True)
    onnx.save(folding.fold(onnx.load(path), "pixels", Recipe()), path)
    assert surgery.declare(path, {"logits": [6]}) == {"logits": [6]}
    assert graphs.session(path).get_inputs()[0].shape == ["batch", 32, 32, 3]
    assert run(onnx.load(path), PIXELS[:, :, :32], "pixels").shape == (1, 6)


def output_too() -> onnx.ModelProto:
    """Return a graph whose input is also an output."""
    model = passing("NCHW")
    model.graph.output.add().CopyFrom(model.graph.input[0])
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (passing("NCHW", opset=6), "its opset 6 is older than 7"),
        (passing("NCHW", TensorProto.UINT8), "its input 'x' is not a batch of pictures in FP32 or FP16"),
        (output_too(), "its input 'x' is an output too"),
    ],
)
def test_what_cannot_be_folded_is_left_alone(model: onnx.ModelProto, words: str) -> None:
    before = model.SerializeToString()
    with pytest.raises(CommandError, match=words):
        folding.fold(model, "x", Recipe())
    assert model.SerializeToString() == before


def test_a_recipe_is_folded_once() -> None:
    model = folding.fold(passing("NCHW"), "x", Recipe())
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(CommandError, match=r"it has nodes named fold/\.\.\. already"):
        folding.fold(model, "x", Recipe())
