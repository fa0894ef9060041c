"""`modelctl add` folds the recipe of pictures into the network: UINT8 passes between the steps, answers stay."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic
from sample_files import contents, labels, png, spec
from skimage import data
from test_onnx import WORDS, run, same_ranking, shapes, softmax, stretched, tokenizer
from tritonclient.grpc import model_config_pb2 as pb

from modelctl.errors import CommandError
from modelctl.graphs import folding as graphs
from modelctl.models import spec as specs
from modelctl.sources import folding

PICTURES = (data.astronaut(), data.coffee(), data.chelsea())
MEAN, STD = [0.1, 0.2, 0.3], [0.5, 0.4, 0.3]
BGR = (
    *("--resize", "stretch", "--scale", "1/255", "--mean", "0.1,0.2,0.3", "--std", "0.5,0.4,0.3"),
    *("--channel-order", "BGR"),
)
Add = Callable[..., Any]


def bgr(array: Any) -> Any:
    """Return a picture [1, 3, 32, 32] by the recipe BGR."""
    values = (stretched(array, 32, 32)[:, :, ::-1] / 255 - MEAN) / STD
    return values.transpose(2, 0, 1)[None].astype(np.float32)


@pytest.mark.parametrize("folded", [True, False])
def test_bytes_pass_between_the_steps(command: Any, served: Any, stack: Any, tmp_path: Path, folded: bool) -> None:
    """The recipe is in the file and recorded; --no-fold leaves it to the step; the answers are the file's own."""
    path = networks.classifier(tmp_path / "net.onnx")
    options = (*BGR, "--labels", labels(tmp_path, 6), *(() if folded else ("--no-fold",)))
    result = command.run("add", str(path), *options)
    assert result.code == 0, result.err
    kind, dims = ("UINT8", [32, 32, 3]) if folded else ("FP32", [3, 32, 32])
    outputs = {one.name: one for one in served.config("net_preprocess").output}
    for one in (outputs["tensor"], *served.config("net_network").input):
        assert (pb.DataType.Name(one.data_type), list(one.dims)) == (f"TYPE_{kind}", dims)
    assert shapes(stack.models, "net_network")[0] == ["batch", *dims]
    assert specs.read(stack.models / "net" / "model.yaml").network.inputs["image"].dtype == kind
    record = spec(stack.models, "net")["network"].get("folded")
    if folded:
        assert record == {"scale": 1 / 255, "mean": MEAN, "std": STD, "channel_order": "BGR"}
        note = "The network takes pixels, UINT8 NHWC; inside are (x * 0.00392157 - [0.1, 0.2, 0.3])"
        assert note in result.err
        assert note in (stack.models / "net" / "MODEL_CARD.md").read_text()
    else:
        assert record is None
    for array in PICTURES:
        same_ranking(served.classify("net", png(array), 6), softmax(run(path, pixels=bgr(array))[0][0]), 1e-5)
    assert command("verify", "net") == 0


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_scales_are_measured_before_folding(
    command: Any, served: Any, stack: Any, tmp_path: Path, precision: str
) -> None:
    """The arithmetic of the recipe stays in FP32: only the network itself is stored in fewer bits."""
    path = networks.classifier(tmp_path / "net.onnx")
    options = (*BGR, "--labels", labels(tmp_path, 6), "--precision", precision)
    assert command("add", str(path), *options) == 0
    model = onnx.load(stack.models / "net_network" / "1" / "model.onnx")
    front = [node.op_type for node in model.graph.node if node.name.startswith("fold/")]
    assert [kind for kind in front if kind != "Constant"] == ["Cast", "Transpose", "Gather", "Mul", "Add"]
    for array in PICTURES:
        same_ranking(served.classify("net", png(array), 6), softmax(run(path, pixels=bgr(array))[0][0]), 0.1)


def test_a_dynamically_quantised_network_is_no_other(command: Any, served: Any, tmp_path: Path) -> None:
    """Such networks enlarge a difference of 1e-7 in their input: both are compared on the same tensor."""
    plain = networks.classifier(tmp_path / "plain.onnx", classes=40)
    path = tmp_path / "dynamic.onnx"
    quantize_dynamic(plain, path, weight_type=QuantType.QUInt8)
    assert "DynamicQuantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}
    result = command.run("add", str(path), *BGR, "--labels", labels(tmp_path, 40))
    assert result.code == 0, result.err
    assert "The network takes pixels" in result.err
    for array in PICTURES:
        same_ranking(served.classify("dynamic", png(array), 40), softmax(run(path, pixels=bgr(array))[0][0]), 0.02)


def test_a_graph_that_cannot_be_folded_is_served_as_it_is(
    command: Any, served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old opset: the reason is said, and the step normalises."""
    monkeypatch.setattr(graphs, "OLDEST_BROADCAST", 18)
    path = networks.classifier(tmp_path / "old.onnx")
    result = command.run("add", str(path), *BGR, "--labels", labels(tmp_path, 6))
    assert result.code == 0, result.err
    assert "The network takes normalised pictures, since its opset 17 is older than 18." in result.err
    for array in PICTURES:
        same_ranking(served.classify("old", png(array), 6), softmax(run(path, pixels=bgr(array))[0][0]), 1e-5)


def test_a_fold_that_computes_something_else_is_not_served(
    command: Any, served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference computes the recipe by itself; the network is then served as it is, and the reason is said."""
    right = graphs.Recipe
    monkeypatch.setattr(folding, "Recipe", lambda *given: dataclasses.replace(right(*given), channel_order="RGB"))
    path = networks.classifier(tmp_path / "net.onnx")
    result = command.run("add", str(path), *BGR, "--labels", labels(tmp_path, 6))
    assert result.code == 0, result.err
    words = r"The network takes normalised pictures, since its recipe differs by \S+ inside the network on \S+\."
    assert re.search(words, result.err), result.err
    for array in PICTURES:
        same_ranking(served.classify("net", png(array), 6), softmax(run(path, pixels=bgr(array))[0][0]), 1e-5)


def test_a_network_that_answers_otherwise_is_not_served(
    command: Any, stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folded network is held against the network as it was."""
    fold = graphs.fold

    def other(model: onnx.ModelProto, *given: Any) -> onnx.ModelProto:
        for tensor in model.graph.initializer:
            tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
        return fold(model, *given)

    monkeypatch.setattr(graphs, "fold", other)
    path = networks.classifier(tmp_path / "net.onnx")
    result = command.run("add", str(path), *BGR, "--labels", labels(tmp_path, 6))
    assert result.code == 0, result.err
    assert "since it would answer otherwise with its recipe inside (0 of 3 first labels agree" in result.err
    assert shapes(stack.models, "net_network")[0] == ["batch", 3, 32, 32]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (np.zeros((1, 4, 4, 3), np.float32), r"its recipe gives float32 \(1, 4, 4, 3\) of a\.jpg inside the network"),
        (np.zeros((1, 3, 4, 4), np.float16), r"its recipe gives float16 \(1, 3, 4, 4\) of a\.jpg inside the network"),
        (np.full((1, 3, 4, 4), np.nan, np.float32), r"its recipe differs by nan inside the network on a\.jpg"),
    ],
)
def test_prepared_pictures_have_type_shape_and_values_of_the_recipe(made: Any, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        folding._require_close("a.jpg", made, np.zeros((1, 3, 4, 4), np.float32))


def test_no_fold_is_refused_where_nothing_would_be_folded(command: Any, stack: Any, tmp_path: Path) -> None:
    """Tensors and texts have no recipe."""
    before = contents(stack.models)
    reader = networks.reader(tmp_path / "reader.onnx", vocabulary=len(WORDS))
    texts = ("--tokenizer", tokenizer(tmp_path), "--labels", labels(tmp_path, 3), "--max-length", "12")
    for path, options in ((networks.two_towers(tmp_path / "towers.onnx"), ()), (reader, texts)):
        result = command.run("add", str(path), *options, "--no-fold")
        assert (result.code, "--no-fold would do nothing" in result.sentence) == (1, True), result.err
    assert contents(stack.models) == before
