"""`modelctl add` runs a network before it believes its file: what is served is what really comes out, or is refused."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import networks
import numpy as np
import odd_networks
import onnx
import pytest
from onnx import TensorProto
from sample_files import contents, labels, png, spec
from test_heads import drafted
from test_onnx import PICTURES, UNIT, planes, run, same_ranking, softmax, stretched
from test_refusals import HOW, net, odd

from modelctl.embedded.running import Running
from modelctl.embedded.triton import TritonError
from modelctl.errors import CommandError
from modelctl.graphs import networks as graphs
from modelctl.graphs import trial
from modelctl.lint.linter import lint
from modelctl.reference import tensors

STRETCH = ("--resize", "stretch")


def pixels(seed: int = 0) -> Any:
    """Return one picture [1, 3, 32, 32]."""
    return np.random.default_rng(seed).random((1, 3, 32, 32), np.float32)


def test_many_heads_without_a_batch_are_served_whole(command: Any, served: Any, stack: Any, tmp_path: Path) -> None:
    """Not a row is lost, `add` says what the served model answers, and dims hold every axis."""
    path = odd_networks.cells(tmp_path / "heads.onnx", ranks=(7, 2, 1))
    result = command.run("add", str(path))
    assert result.code == 0, result.err
    assert "one random item gives out0 FP32 [16, 7] from " in result.err
    assert served.config("heads").max_batch_size == 0
    assert spec(stack.models, "heads")["network"]["outputs"]["out2"]["dims"] == [16, 1]
    for seed in range(3):
        made = served.tensors("heads", {"input": pixels(seed)}, ("out0", "out1", "out2"))
        for found, expected in zip(made.values(), run(path, input=pixels(seed)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert command("verify", "heads") == 1, "a tensor model has no reference"
    assert not [one for one in lint(stack.models)[1] if one.model == "heads" and one.rule.code != "TG053"]


def test_rows_that_the_picture_makes(command: Any, served: Any, tmp_path: Path) -> None:
    """As a classifier they are refused, as tensors they are served whole, however many there are."""
    path = odd_networks.found(tmp_path / "found.onnx")
    result = command.run("add", str(path), *STRETCH, *UNIT, "--labels", labels(tmp_path, 2))
    assert result.code == 1
    assert "The first axis of the output 'rows' is not the batch: one picture gives [" in result.sentence
    assert "or serve its tensors whole with --task none" in result.sentence
    assert command("add", str(path), "--task", "none") == 0
    for bright in (0.4, 0.55, 0.7):
        given = (pixels() * bright * 2).astype(np.float32)
        (expected,) = run(path, input=given)
        np.testing.assert_array_equal(served.tensors("found", {"input": given}, ("rows",))["rows"], expected)


def test_a_batch_can_be_declined(command: Any, served: Any, tmp_path: Path) -> None:
    """A network that batches is served whole where the user says so; a task cannot be."""
    path = networks.two_towers(tmp_path / "towers.onnx")
    assert command("add", str(path), "--max-batch-size", "0") == 0
    assert served.config("towers").max_batch_size == 0
    given = {"a": np.ones((3, 3), np.float32), "index": np.ones((3, 4), np.int64)}
    made = served.tensors("towers", given, ("sum", "picked"))
    np.testing.assert_allclose(made["sum"], run(path, **given)[0], rtol=1e-5)


def test_a_plan_needs_a_batch(command: Any, tmp_path: Path) -> None:
    """Of a network without one no plan is configured."""
    result = command.run("add", str(odd_networks.cells(tmp_path / "heads.onnx")), "--tensorrt")
    assert result.code == 1
    assert "is not a batch, which a TensorRT plan needs: omit --tensorrt" in result.sentence


def test_a_single_axis_is_served(command: Any, served: Any, tmp_path: Path) -> None:
    """A batch alone, without sizes behind it, is no batch for Triton."""
    x, y = (networks.value(name, TensorProto.FLOAT, ["N"]) for name in "xy")
    path = networks.save(tmp_path / "line.onnx", [networks.node("Abs", ["x"], ["y"])], [x], [y], {})
    assert command("add", str(path)) == 0
    given = np.array([-1, 2, -3], np.float32)
    np.testing.assert_array_equal(served.tensors("line", {"x": given}, ("y",))["y"], abs(given))


def test_a_head_of_one_picture_gets_its_batch(command: Any, served: Any, tmp_path: Path) -> None:
    """A network for one picture whose head has no batch answers as the same network with one."""
    how = ("--resize", "letterbox_center", *UNIT, "--decoder", "yolov8", "--labels", labels(tmp_path, 3))
    assert command("add", str(networks.yolo(tmp_path / "with.onnx")), *how) == 0
    assert command("add", str(odd_networks.yolo_rows(tmp_path / "without.onnx")), *how) == 0
    for array in PICTURES:
        expected = served.detect("with", png(array))
        assert len(expected) >= 2
        for one, other in zip(served.detect("without", png(array)), expected, strict=True):
            assert one[0] == other[0]
            np.testing.assert_allclose([one[1], *one[2]], [other[1], *other[2]], atol=1e-3)


def test_an_output_without_a_declared_shape(command: Any, served: Any, stack: Any, tmp_path: Path) -> None:
    """Its sizes are learned from runs on pictures of several sizes."""
    path = odd_networks.undeclared(tmp_path / "bare.onnx")
    assert command("add", str(path), *STRETCH, *UNIT, "--size", "32", "32", "--labels", labels(tmp_path, 6)) == 0
    assert spec(stack.models, "bare")["network"]["outputs"]["logits"]["dims"] == [6]
    for array in PICTURES:
        same_ranking(served.classify("bare", png(array), 6), softmax(run(path, pixels=planes(array, 32))[0][0]))


def test_an_undeclared_output_that_cannot_be_learned(command: Any, tmp_path: Path) -> None:
    """A network that runs on no sample says why, and what to do."""
    path = networks.classifier(tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"free{axis}"
    model.graph.node[0].attribute[0].ints[:] = [3000, 3000]
    onnx.save(model, path)
    result = command.run("add", str(path), *HOW, "--labels", labels(tmp_path, 6))
    assert result.code == 1
    assert "has no declared shape, and the network does not run on sample inputs" in result.sentence
    assert "give --size, or export it with the shapes of its outputs" in result.sentence


@pytest.mark.parametrize("how", ["scale", "signed", "bytes", "real", "logits"])
def test_scores_in_bytes(command: Any, served: Any, tmp_path: Path, how: str) -> None:
    """They become probabilities in the graph, Triton hands on FP32, and no softmax follows one; inputs stay bytes."""
    path = odd_networks.quantized(tmp_path / "few.onnx", how)
    assert command("add", str(path), *STRETCH, "--labels", labels(tmp_path, 6)) == 0
    config = served.config("few_network")
    assert [config.input[0].data_type, config.output[0].data_type] == [2, 11], "TYPE_UINT8, TYPE_FP32"
    for array in PICTURES:
        scores = run(path, pixels=stretched(array, 32, 32)[None])[0][0].astype(np.float64)
        zero = {"signed": -128, "logits": 128}.get(how, 0)
        expected = softmax((scores - zero) * 0.1) if how == "logits" else (scores - zero) / 256
        same_ranking(served.classify("few", png(array), 6), expected)


def test_scores_in_bytes_of_many_classes(tmp_path: Path) -> None:
    """Most of them are rounded to 0: what is left of their sum is probabilities still, and gets no softmax."""
    path = odd_networks.quantized(tmp_path / "many.onnx", "scale", classes=1000)
    sums = [run(path, pixels=stretched(array, 32, 32)[None])[0].sum() / 256 for array in PICTURES]
    assert min(sums) < 0.9
    draft = drafted(tmp_path, path, names=1000, prepared=STRETCH)
    assert draft.spec.postprocess.activation == "none"


def test_bytes_without_a_meaning_are_refused(command: Any, tmp_path: Path) -> None:
    """Neither a scale in the graph nor a sum of 256: nobody knows what they are."""
    path = odd_networks.quantized(tmp_path / "few.onnx", "tenth")
    result = command.run("add", str(path), *STRETCH, "--labels", labels(tmp_path, 6))
    assert result.code == 1
    assert "The output 'scores' is UINT8, without a scale in the graph that would make scores of it" in result.sentence
    assert "export it with real numbers, or serve its tensors with --task none" in result.sentence


def test_without_a_triton_nothing_is_added(command: Any, stack: Any, tmp_path: Path) -> None:
    """No answer could be shown, so `add` fails and leaves no file; --no-load asks for the files alone."""
    before = contents(stack.models)
    result = command.run("add", *net(tmp_path, *HOW), "--grpc-port", "1")
    assert result.code == 1
    assert (
        "No Triton answers on port 1: start it with ./dev_start.sh, or give --grpc-port; --no-load" in result.sentence
    )
    assert contents(stack.models) == before
    result = command.run("add", *net(tmp_path, *HOW), "--grpc-port", "1", "--no-load")
    assert result.code == 0
    assert "not loaded, as --no-load asks: modelctl load net does it, and modelctl verify asks it" in result.err
    assert "net is in the repository" in result.out
    assert (command("load", "net"), command("verify", "net")) == (0, 0)


@pytest.mark.parametrize("kind", ["picture", "tensors"])
def test_a_crash_of_onnx_runtime_touches_nothing(
    command: Any, served: Any, stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The child ends, and the command says so; repository and server are as before. (The crash is played.)"""
    before, states = contents(stack.models), served.index()
    script = f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})"
    monkeypatch.setattr(trial, "COMMAND", (sys.executable, "-c", script))
    path = networks.two_towers(tmp_path / "net.onnx")
    result = command.run("add", *(net(tmp_path, *HOW) if kind == "picture" else (str(path),)))
    assert result.code == 1
    assert (
        "at the step 'read': ONNX Runtime crashes on the network (SIGSEGV), in a process of its own" in result.sentence
    )
    assert result.sentence.endswith("The repository is as before.")
    assert contents(stack.models) == before
    assert served.index() == states


class Dying:
    """A Triton that ends while it loads."""

    def states(self) -> dict[str, str]:
        """Know the model."""
        return {"net": ""}

    def load(self, _: str) -> None:
        """Fail as a closed connection does."""
        raise TritonError("Socket closed")

    def is_live(self) -> bool:
        """Answer nobody any more."""
        return False


def test_a_triton_that_ends_is_told_from_one_that_refuses() -> None:
    """The sentence says that it ended, and where its log is. (Its end is played.)"""
    triton: Any = Dying()
    with pytest.raises(
        CommandError, match=r"Triton ended while it loaded net \(Socket closed\): its log, .* may say why"
    ):
        Running(triton).load("net")


def test_an_answer_that_is_another(stack: Any, served: Any) -> None:
    """A served tensor model that answers otherwise than its network did is noticed: types, axes and values."""
    config = served.config("simple_net")
    given = {config.input[0].name: np.ones((1, *config.input[0].dims), np.float32)}
    output = config.output[0].name
    right = served.tensors("simple_net", given, (output,))
    assert tensors.check("simple_net", given, right, stack.grpc, values=True).startswith(f"{output} FP32 [1, ")
    for wrong in (right[output] + 1, right[output][0], right[output].astype(np.float64)):
        with pytest.raises(CommandError, match="does not answer as its network does"):
            tensors.check("simple_net", given, {output: wrong}, stack.grpc, values=True)
    tensors.check("simple_net", given, {output: right[output] + 1}, stack.grpc, values=False)
    with pytest.raises(CommandError, match="The served model fails"):
        tensors.check("simple_net", {"unknown": np.ones((1, 1), np.float32)}, right, stack.grpc, values=True)


def test_a_network_of_more_than_one_file_is_served(
    command: Any, served: Any, stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the limit (lowered here) the weights lie beside the network, in its version folder."""
    monkeypatch.setattr(graphs, "MAX_BYTES", 1000)
    path = networks.classifier(tmp_path / "large.onnx", classes=300)
    result = command.run("add", str(path), *HOW, "--labels", labels(tmp_path, 300))
    assert result.code == 0, result.err
    folder = stack.models / "large_network" / "1"
    assert sorted(one.name for one in folder.iterdir()) == [".gitkeep", "model.onnx", "model.onnx.data"]
    assert not [one for one in lint(stack.models)[1] if one.rule.severity == "error"]
    for array in PICTURES:
        expected = softmax(run(path, pixels=planes(array, 32))[0][0])
        found = dict(served.classify("large", png(array), 5))
        assert max(abs(score - expected[int(label.split()[1])]) for label, score in found.items()) < 1e-3


def test_a_network_newer_than_the_containers_is_said(command: Any, tmp_path: Path) -> None:
    """Both versions are named; it is added, since this machine's ONNX Runtime runs it."""
    path = networks.two_towers(tmp_path / "towers.onnx")
    model = onnx.load(path)
    model.opset_import[0].version, model.ir_version = 24, 11
    onnx.save(model, path)
    result = command.run("add", str(path))
    assert result.code == 0, result.err
    assert "TG077 towers: It has opset 24 and IR 11; ONNX Runtime 1.19.2, in Triton 24.10, takes opset 21" in result.err


def test_a_scalar_is_refused(command: Any, tmp_path: Path) -> None:
    """Triton has no tensors without axes; the sentence says which one it is."""
    nodes = [networks.node("ReduceSum", ["x"], ["y"], keepdims=0)]
    arguments = odd(
        tmp_path,
        nodes,
        [networks.value("x", TensorProto.FLOAT, ["N", 2])],
        [networks.value("y", TensorProto.FLOAT, [])],
    )
    result = command.run("add", *arguments)
    assert result.code == 1
    assert "'y' is a single number without axes, which Triton cannot serve" in result.sentence


def test_free_axes_that_take_multiples(command: Any, served: Any, tmp_path: Path) -> None:
    """Networks for pictures often take multiples of their cells: sizes are tried until one runs."""
    path = odd_networks.cellwise(tmp_path / "cells.onnx")
    result = command.run("add", str(path), "--task", "none")
    assert result.code == 0, result.err
    item = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    np.testing.assert_allclose(served.tensors("cells", {"input": item}, ("map",))["map"], *run(path, input=item), 1e-6)
