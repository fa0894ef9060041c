"""`modelctl add --precision`: fewer bits are taken where the answers stay the same, and refused where they do not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import onnxruntime
import pytest
from sample_files import contents, labels, png, spec
from skimage import data
from test_onnx import SINGLE, UNIT, WORDS, planes, run, shapes, softmax, tokenizer

PICTURES = (data.astronaut(), data.coffee(), data.chelsea())
AGREEMENT = re.compile(r"(\d) of (\d) first labels agree, scores differ by (\S+) at most")
Add = Callable[..., Any]


def stored(models: Path, name: str) -> onnx.ModelProto:
    """Return the network as it is stored."""
    return onnx.load(models / f"{name}_network" / "1" / "model.onnx")


def weights_of(model: onnx.ModelProto, kind: int) -> int:
    """Return how many numbers of the weights are of a kind."""
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type == kind)


@pytest.fixture
def examples(tmp_path: Path) -> str:
    """Return a folder of pictures to measure scales on."""
    folder = tmp_path / "examples"
    folder.mkdir()
    for number, array in enumerate(PICTURES):
        (folder / f"{number}.png").write_bytes(png(array))
    return str(folder)


@pytest.mark.parametrize(
    ("precision", "kind", "limit"), [("fp16", onnx.TensorProto.FLOAT16, 0.02), ("int8", onnx.TensorProto.INT8, 0.15)]
)
def test_pictures(
    command: Any,
    served: Any,
    stack: Any,
    tmp_path: Path,
    examples: str,
    precision: str,
    kind: int,
    limit: float,
) -> None:
    """All weights of the convolution are of the new kind, and the served scores are the original's within the limit."""
    path = networks.classifier(tmp_path / "net.onnx")
    options = ("--resize", "stretch", *UNIT, "--labels", labels(tmp_path, 6), "--examples", examples)
    result = command.run("add", str(path), *options, "--precision", precision)
    assert result.code == 0, result.err
    assert weights_of(stored(stack.models, "net"), kind) >= 6 * 48
    assert shapes(stack.models, "net_network")[1] == ["batch", 6]
    first, of, difference = next(iter(AGREEMENT.findall(result.err)))
    assert (first, of) == ("3", "3")
    assert 0 < float(difference) <= limit
    card = (stack.models / "net" / "MODEL_CARD.md").read_text()
    assert f"scores differ by {difference} at most" in card
    assert "tensorrt" not in spec(stack.models, "net")["network"], "a plan is built from the full precision alone"
    for array in PICTURES:
        expected = softmax(run(path, pixels=planes(array, 32))[0][0])
        answer = served.classify("net", png(array), 6)
        worst = max(abs(score - expected[int(label.split()[1])]) for label, score in answer)
        assert 0 < worst <= limit


def test_texts_in_bytes(command: Any, served: Any, stack: Any, tmp_path: Path) -> None:
    """A text's answer is that of the original within the limit, and the same beside any other."""
    path = networks.reader(tmp_path / "reader.onnx", vocabulary=len(WORDS))
    options = ("--tokenizer", tokenizer(tmp_path), "--labels", labels(tmp_path, 3), "--max-length", "16", *SINGLE)
    result = command.run("add", str(path), *options, "--precision", "int8")
    assert result.code == 0, result.err
    assert weights_of(stored(stack.models, "reader"), onnx.TensorProto.INT8) == 15
    for text in ("the company expects sales to fall", "profit rose"):
        ids = np.array([[WORDS.index(word) for word in text.split()]])
        expected = softmax(run(path, input_ids=ids, attention_mask=np.ones_like(ids))[0][0])
        answer = served.read("reader", text)
        worst = max(abs(score - expected[int(label.split()[1])]) for label, score in answer.items())
        assert 0 < worst <= 0.15
    session = onnxruntime.InferenceSession(str(stack.models / "reader_network" / "1" / "model.onnx"))
    ids = np.array([[2, 3, 4, 5, 6], [8, 9, 0, 0, 0]])
    mask = (ids > 0).astype(np.int64)
    together = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    for row, length in ((0, 5), (1, 2)):
        given = {"input_ids": ids[row : row + 1, :length], "attention_mask": mask[row : row + 1, :length]}
        np.testing.assert_allclose(session.run(None, given)[0][0], together[row], rtol=1e-5)


def loud(path: Path, factor: float) -> Path:
    """Write the classifier with logits so large, and so much alike, that few bits cannot tell them apart."""
    model = onnx.load(networks.classifier(path))
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        alike = (array[:1] + 0.003 * (array - array[:1])) * factor
        tensor.CopyFrom(onnx.numpy_helper.from_array(alike.astype(np.float32), tensor.name))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("precision", "factor"), [("fp16", 1000), ("int8", 300)])
def test_what_differs_too_much_is_refused(
    command: Any, stack: Any, tmp_path: Path, precision: str, factor: float
) -> None:
    """The sentence gives the difference and the limit, and the repository stays as it was; in FP32 it is taken."""
    path = loud(tmp_path / "loud.onnx", factor)
    options = ("--resize", "stretch", *UNIT, "--labels", labels(tmp_path, 6))
    before = contents(stack.models)
    result = command.run("add", str(path), *options, "--precision", precision)
    assert result.code == 1
    limit = {"fp16": 0.02, "int8": 0.15}[precision]
    assert "at the step 'compare': The stored network differs too much" in result.sentence
    assert f"a score may differ by {limit}" in result.sentence
    assert float(AGREEMENT.findall(result.sentence)[0][2]) > limit
    assert contents(stack.models) == before
    assert command("add", str(path), *options) == 0


def test_what_cannot_be_stored_so_is_refused(command: Any, stack: Any, tmp_path: Path) -> None:
    """A network without a task, and texts in bytes of a graph that is too new."""
    before = contents(stack.models)
    result = command.run("add", str(networks.two_towers(tmp_path / "towers.onnx")), "--precision", "fp16")
    assert (result.code, "omit --precision" in result.sentence) == (1, True), result.err
    path = networks.reader(tmp_path / "reader.onnx", vocabulary=len(WORDS))
    model = onnx.load(path)
    model.opset_import[0].version = 18
    onnx.save(model, path)
    options = ("--tokenizer", tokenizer(tmp_path), "--labels", labels(tmp_path, 3), "--max-length", "16", *SINGLE)
    result = command.run("add", str(path), *options, "--precision", "int8")
    assert (result.code, "needs a graph of opset 17 or less, and this one has 18" in result.sentence) == (1, True)
    assert contents(stack.models) == before
