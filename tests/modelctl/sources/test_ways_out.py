"""A refusal of `modelctl add` names all that is missing, and what it proposes works. No server is needed to read."""

from __future__ import annotations

import argparse
import pickle
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from networks import node, value, weights
from onnx import TensorProto, helper
from sample_files import labels
from test_onnx import UNIT, WORDS, tokenizer

from modelctl import cli
from modelctl.errors import CommandError
from modelctl.graphs import networks as graphs
from modelctl.graphs import precision
from modelctl.models import configs
from modelctl.sources import find, hub
from modelctl.sources.draft import Draft, Order

HOW = ("--resize", "stretch", *UNIT)


def read(work: Path, *words: object) -> Draft:
    """Return the draft that `modelctl add` makes of a command line."""
    options = cli.build(["add"]).parse_args(["add", *map(str, words)])
    folder = work / f"work{time.monotonic_ns()}"
    folder.mkdir()
    return find.draft(Order(options.source, "model", options, folder))


def refusal(work: Path, *words: object) -> str:
    """Return the sentence that refuses a command line."""
    with pytest.raises(CommandError) as error:
        read(work, *words)
    return str(error.value)


def test_a_classifier_without_any_option(tmp_path: Path) -> None:
    """One sentence asks for the recipe and the labels; with them the file is read."""
    path = networks.classifier(tmp_path / "net.onnx")
    said = refusal(tmp_path, path)
    assert said.startswith(
        "The file does not say how its pictures were prepared and does not name its 6 classes: "
        "give --resize, --scale, --mean, --std, --labels FILE. (Most ImageNet networks of PyTorch: --resize "
    )
    example = said.partition("PyTorch: ")[2].rstrip(")").split()
    assert read(tmp_path, path, *example, "--labels", labels(tmp_path, 6)).labels[5] == "label 5"


def test_a_classifier_whose_scores_come_from_a_sigmoid(tmp_path: Path) -> None:
    """The activation is asked for at once too; each of the three that are proposed is taken."""
    path = networks.classifier(tmp_path / "net.onnx", ending="sigmoid")
    said = refusal(tmp_path, path, "--resize", "stretch")
    assert "whether its scores are of each class by itself: give --scale, --mean, --std, --labels FILE, " in said
    assert "--activation (sigmoid for scores of each class by itself, none where they are probabilities" in said
    for activation in ("sigmoid", "none", "softmax"):
        made = read(tmp_path, path, *HOW, "--labels", labels(tmp_path, 6), "--activation", activation)
        assert made.spec.postprocess.activation == activation


def test_pictures_of_any_size_and_layout(tmp_path: Path) -> None:
    """A network that fixes nothing is no classifier by itself; the task that is proposed asks for the rest at once."""
    path = networks.save(
        tmp_path / "free.onnx",
        [
            node("ReduceMean", ["x"], ["means"], axes=[2, 3], keepdims=0),
            node("ReduceMean", ["means"], ["mean"], axes=[1]),
            node("MatMul", ["mean", "w"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, ["N", "c", "h", "w"])],
        [value("y", TensorProto.FLOAT, ["N", 2])],
        {"w": weights(1, 2, spread=9)},
    )
    said = refusal(tmp_path, path, *HOW)
    assert said == (
        "No task is recognised from the inputs x [?, ?, ?, ?] and the outputs y [?, 2], so --resize, --scale, --mean, "
        "--std would do nothing: give --task image-classification, which reads one output [batch, classes], or omit "
        "them to serve the network by its tensors."
    )
    said = refusal(tmp_path, path, *HOW, "--task", "image-classification")
    assert said == (
        "The file does not tell the layout of its input, takes pictures of any size and does not name its 2 classes: "
        "give --layout NCHW or NHWC, --size HEIGHT,WIDTH, --labels FILE."
    )
    rest = ("--layout", "NCHW", "--size", "32,32", "--labels", labels(tmp_path, 2), "--task", "image-classification")
    assert read(tmp_path, path, *HOW, *rest).spec.task == "image-classification"
    assert read(tmp_path, path).spec.task == "none"


def test_options_of_a_task_for_a_network_without_one(tmp_path: Path) -> None:
    """The sentence shows inputs and outputs, and proposes no task that would not take them."""
    path = networks.two_towers(tmp_path / "towers.onnx")
    said = refusal(tmp_path, path, "--labels", labels(tmp_path, 3))
    assert said.startswith("No task is recognised from the inputs a [?, 3], index [?, ?] and the outputs sum [?, ")
    assert said.endswith("so --labels would do nothing: omit it to serve the network by its tensors.")
    assert read(tmp_path, path).spec.task == "none"
    assert "--labels would do nothing for a network that is served by its tensors (--task none): omit it." in refusal(
        tmp_path, path, "--labels", labels(tmp_path, 3), "--task", "none"
    )


def test_a_detector_without_any_option(tmp_path: Path) -> None:
    """The labels and the recipe are asked for together."""
    said = refusal(tmp_path, networks.yolo(tmp_path / "y.onnx"), "--decoder", "yolov8")
    assert "and does not name its classes: give --resize, --scale, --mean, --std, --labels FILE." in said
    rest = ("--decoder", "yolov8", "--labels", labels(tmp_path, 3))
    assert read(tmp_path, tmp_path / "y.onnx", *HOW, *rest).spec.task == "object-detection"


def test_an_odd_size_of_a_detector_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the network runs, and with the nearest size that fits; that one is taken without a word."""
    path = networks.yolo(tmp_path / "y.onnx", free=True)
    rest = (*HOW, "--decoder", "yolov8", "--labels", labels(tmp_path, 3))
    refusal(tmp_path, path, *rest, "--size", "70", "60")
    assert "--size 70 60 is not a multiple of 32, as most detectors need: try 64 64." in capsys.readouterr().err
    assert read(tmp_path, path, *rest, "--size", "64", "64").spec.task == "object-detection"
    assert "multiple" not in capsys.readouterr().err


def test_a_text_network_without_any_option(tmp_path: Path) -> None:
    """Tokenizer and labels first; labels that may come together ask for the activation, others do not."""
    path = networks.reader(tmp_path / "text.onnx", vocabulary=len(WORDS))
    said = refusal(tmp_path, path)
    assert said == (
        "The file does not name its 3 classes and does not hold its tokenizer: "
        "give --labels FILE, --tokenizer tokenizer.json."
    )
    topics, moods = tmp_path / "topics.txt", tmp_path / "moods.txt"
    topics.write_text("sport\nmoney\nwar\n")
    moods.write_text("Positive\nNEGATIVE\nneutral\n")
    rest = ("--tokenizer", tokenizer(tmp_path), "--max-length", "12")
    said = refusal(tmp_path, path, "--labels", topics, *rest)
    assert said == (
        "The file does not say whether a text may have several labels: give --activation softmax when a text has "
        "exactly one label, or sigmoid when each label is decided by itself (multi-label)."
    )
    for activation in ("softmax", "sigmoid"):
        made = read(tmp_path, path, "--labels", topics, *rest, "--activation", activation)
        assert made.spec.postprocess.activation == activation
    made = read(tmp_path, path, "--labels", moods, *rest)
    assert made.spec.postprocess.activation == "softmax"


def test_a_tokenizer_that_cuts_the_beginning(tmp_path: Path) -> None:
    """The side is read from tokenizer.json, written to model.yaml, and passed to the step."""
    from tokenizers import Tokenizer

    path = networks.reader(tmp_path / "text.onnx", vocabulary=len(WORDS))
    cut = Tokenizer.from_file(tokenizer(tmp_path))
    cut.enable_truncation(12, direction="left")
    cut.save(str(tmp_path / "tokenizer.json"))
    rest = ("--tokenizer", tmp_path / "tokenizer.json", "--max-length", "12", "--activation", "softmax")
    made = read(tmp_path, path, *rest, "--labels", labels(tmp_path, 3))
    assert made.spec.preprocess.truncation_side == "left"
    step = configs.preprocess(made.spec)
    assert step.parameters["truncation_side"].string_value == "left"


def zipped(path: Path, content: bytes) -> Path:
    """Write a file in the form of `torch.save`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return path


def test_weights_without_a_network(tmp_path: Path) -> None:
    """Neither .safetensors nor a state_dict is taken for a file of Ultralytics; a folder with config.json is named."""
    tensors, state = tmp_path / "a.safetensors", tmp_path / "b.pt"
    tensors.write_bytes(b"\0" * 16)
    zipped(state, pickle.dumps(OrderedDict(weight=1), protocol=2))
    for path in (tensors, state):
        assert refusal(tmp_path, path) == (
            f"{path} is a state_dict, weights without a network: load it into its network in Python and export that "
            "first (torch.onnx.export), then add the .onnx file."
        )
    (tmp_path / "config.json").write_text("{}")
    assert f"give the folder, {tmp_path}." in refusal(tmp_path, tensors)


def test_a_pickled_network_is_named_and_not_run(tmp_path: Path) -> None:
    """Its package is read from the names in the file; one of Ultralytics goes to Ultralytics' own exporter."""
    path = zipped(tmp_path / "net.pt", pickle.dumps(argparse.Namespace(a=1), protocol=4))
    assert refusal(tmp_path, path) == (
        f"{path} is a pickled network of argparse, whose reading would run its code: export it to ONNX "
        "(torch.onnx.export) or TorchScript (torch.jit.script) first."
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.h5", "is of Keras: export it by model.export('folder') and python -m tf2onnx.convert --saved-model folder"),
        ("a.keras", "is of Keras: "),
        ("a.pb", "is of TensorFlow: convert it by python -m tf2onnx.convert --graphdef a.pb --output model.onnx"),
        ("a.engine", "is a TensorRT plan, which fits one GPU and one version: add the ONNX file that it was made of"),
        ("a.plan", "is a TensorRT plan"),
        ("a.mlmodel", "is of Core ML: export the network that it was made of to ONNX."),
        ("a.mlpackage", "is of Core ML"),
        ("a.pkl", "is a pickle, whose reading would run its code: export the model to ONNX (scikit-learn: skl2onnx)."),
        ("a.joblib", "is a pickle"),
        ("a.gguf", "is a language model of llama.cpp, which is not served here."),
        ("a.pdmodel", "is of Paddle: convert it by paddle2onnx --model_dir . --model_filename a.pdmodel"),
    ],
)
def test_files_of_other_frameworks_are_named(tmp_path: Path, name: str, sentence: str) -> None:
    """With the command that makes an ONNX file of them."""
    (tmp_path / name).write_bytes(b"content")
    assert sentence in refusal(tmp_path, tmp_path / name)


def python(folder: Path, body: str) -> str:
    """Write a program that stands in for another Python; return its path."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_tensorflow_lite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tf2onnx converts it where it is installed; else, and where it fails, the sentence says what to do."""
    path = tmp_path / "net.tflite"
    path.write_bytes(b"....TFL3")
    monkeypatch.setenv("TF2ONNX_PYTHON", python(tmp_path, "echo \"No module named 'tf2onnx'\" >&2; exit 1"))
    said = refusal(tmp_path, path)
    assert "install tf2onnx and tensorflow in a Python that TF2ONNX_PYTHON names, or convert it elsewhere by" in said
    assert "python -m tf2onnx.convert --tflite net.tflite --output net.onnx --opset 17 and add that file" in said
    monkeypatch.setenv("TF2ONNX_PYTHON", python(tmp_path, "echo 'a trace\nValueError: no operator' >&2; exit 1"))
    assert refusal(tmp_path, path) == f"tf2onnx could not convert {path}: ValueError: no operator"
    monkeypatch.setenv("TF2ONNX_PYTHON", str(tmp_path / "nowhere"))
    assert "tf2onnx could not be run by" in refusal(tmp_path, path)
    network = networks.classifier(tmp_path / "net.onnx")
    monkeypatch.setenv("TF2ONNX_PYTHON", python(tmp_path, f'cp {network} "$6"'))
    made = read(tmp_path, path, *HOW, "--labels", labels(tmp_path, 6))
    assert made.notes[-1] == "Converted from TensorFlow Lite by tf2onnx."
    assert "There is no file" in refusal(tmp_path, tmp_path / "no.tflite")


def test_a_map_of_scores_is_served_with_its_own_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A classifier of pictures that ends in ZipMap needs no --labels; the user's own overrule it."""
    model = onnx.load(networks.classifier(tmp_path / "net.onnx", ending="probabilities", classes=3))
    names = {"classlabels_strings": ["cat", "dog", "Negative"]}
    model.graph.node.append(helper.make_node("ZipMap", ["probabilities"], ["loss"], domain="ai.onnx.ml", **names))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    del model.graph.output[:]
    entry = model.graph.output.add(name="loss").type.sequence_type.elem_type.map_type
    entry.key_type, entry.value_type.tensor_type.elem_type = TensorProto.STRING, TensorProto.FLOAT
    onnx.save(model, str(tmp_path / "net.onnx"))
    made = read(tmp_path, tmp_path / "net.onnx", *HOW)
    assert (made.spec.task, made.labels) == ("image-classification", ["cat", "dog", "Negative"])
    assert made.spec.postprocess.activation == "none"
    note = "The output 'loss', a map from names to scores, is served as its scores."
    assert note in made.notes
    assert note in capsys.readouterr().err
    assert read(tmp_path, tmp_path / "net.onnx", *HOW, "--labels", labels(tmp_path, 3)).labels[0] == "label 0"


def unserved(path: Path, domain: str, kind: int = TensorProto.FLOAT) -> Path:
    """Write a network of one operator of a domain that is not the standard's."""
    nodes = [helper.make_node("Mystery", ["x"], ["y"], domain=domain)]
    graph = helper.make_graph(nodes, "g", [value("x", kind, ["N", 2])], [value("y", kind, ["N", 2])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def test_custom_operators_and_texts_as_inputs(tmp_path: Path) -> None:
    """They are refused by name, with the way out of those that are well known."""
    path = tmp_path / "odd.onnx"
    assert refusal(tmp_path, unserved(path, "acme")).endswith("ONNX Runtime lacks: export it with standard operators.")
    said = refusal(tmp_path, unserved(path, "ai.onnx.contrib"))
    assert "uses the custom operator ai.onnx.contrib.Mystery" in said
    assert "it is of onnxruntime-extensions: export the network without its pre- and postprocessing" in said
    assert "it is of MMDeploy's plugins" in refusal(tmp_path, unserved(path, "mmdeploy"))
    assert "is a plugin of TensorRT: export the network without its NMS" in refusal(tmp_path, unserved(path, "TRT"))
    said = refusal(tmp_path, unserved(path, "acme", TensorProto.STRING))
    assert "The input 'x' is of type STRING, which is not served: export the network behind its tokenizer" in said


def quantized(path: Path) -> Path:
    """Write the small classifier with its weights as bytes."""
    model = onnx.load(networks.classifier(path))
    model.graph.node.insert(0, node("DynamicQuantizeLinear", ["pixels"], ["bytes", "scale", "zero"]))
    model.graph.node.insert(1, node("DequantizeLinear", ["bytes", "scale", "zero"], ["values"]))
    model.graph.node[2].input[0] = "values"
    onnx.save(model, str(path))
    return path


def test_a_network_that_is_quantised_already(tmp_path: Path) -> None:
    """It is not stored in other bits once more; in FP16 one may still become int8."""
    for wanted in ("fp16", "int8"):
        with pytest.raises(CommandError, match=r"^The network is stored as int8 already: omit --precision\.$"):
            precision.convert(quantized(tmp_path / "bytes.onnx"), wanted, [], text=False)
    half = networks.classifier(tmp_path / "half.onnx", dtype="float16")
    with pytest.raises(CommandError, match=r"^The network is stored as fp16 already: omit --precision\.$"):
        precision.convert(half, "fp16", [], text=False)


def test_an_opset_that_is_too_old_for_int8(tmp_path: Path) -> None:
    """It is raised, and the answers stay within int8's limit; where it cannot be raised the sentence says so."""
    path = networks.classifier(tmp_path / "old.onnx")
    model = onnx.load(path)
    model.opset_import[0].version = 9
    onnx.save(model, str(path))
    pixels = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    before = graphs.run(graphs.session(path), {"pixels": pixels})["logits"]
    precision.convert(path, "int8", [{"pixels": pixels[:1]}, {"pixels": pixels[1:]}], text=False)
    stored = onnx.load(path)
    assert stored.opset_import[0].version >= 13
    assert "QuantizeLinear" in {entry.op_type for entry in stored.graph.node}
    after = graphs.run(graphs.session(path), {"pixels": pixels})["logits"]
    assert np.abs(after - before).max() < 0.05 * np.abs(before).max()


def test_an_opset_that_cannot_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names both opsets. (What the converter of ONNX does not know is played.)"""

    def fail(*_: object) -> None:
        raise RuntimeError("no adapter")

    path = networks.classifier(tmp_path / "old.onnx")
    model = onnx.load(path)
    model.opset_import[0].version = 9
    onnx.save(model, str(path))
    monkeypatch.setattr("onnx.version_converter.convert_version", fail)
    with pytest.raises(CommandError) as error:
        precision.convert(path, "int8", [], text=False)
    assert str(error.value) == (
        "The network's opset 9 is too old for int8, which needs 13, and it cannot be raised (no adapter): "
        "export it again with opset 17, or omit --precision."
    )


def test_a_tensor_model_may_call_its_output_logits(tmp_path: Path) -> None:
    """Its configuration names no labels, which it does not have."""
    path = networks.save(
        tmp_path / "t.onnx",
        [node("Identity", ["x"], ["logits"])],
        [value("x", TensorProto.FLOAT, ["N", 4])],
        [value("logits", TensorProto.FLOAT, ["N", 4])],
        {},
    )
    config = configs.network(read(tmp_path, path).spec)
    assert [entry.label_filename for entry in config.output] == [""]


@pytest.mark.parametrize(
    "words",
    [
        ("--mean", "0.5", "0.5", "0.5", "--std", "0.2", "net.onnx"),
        ("net.onnx", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2"),
        ("--mean=0.5", "0.5", "0.5", "net.onnx", "--std", "0.2"),
        ("net.onnx", "--mean", "0.5,", "0.5,", "0.5", "--std", "0.2"),
    ],
)
def test_lists_of_numbers_with_commas_or_blanks(words: tuple[str, ...]) -> None:
    """The source may stand behind them."""
    options = cli.build(["add"]).parse_args(["add", *words])
    assert (options.source, options.mean, options.std) == ("net.onnx", [0.5] * 3, [0.2] * 3)


def test_sizes_and_negative_numbers() -> None:
    """A size is one side, or height and width; a mean may be below zero."""
    parse = cli.build(["add"]).parse_args
    for words in (("--size", "64", "32"), ("--size", "64,32"), ("--size=64,32",)):
        assert parse(["add", "net.onnx", *words]).size == [64, 32]
    assert parse(["add", "net.onnx", "--size", "64"]).size == [64, 64]
    assert parse(["add", "net.onnx", "--mean", "-1", "-0.5", ".5"]).mean == [-1, -0.5, 0.5]
    assert parse(["add", "--strides", "8", "16", "net.onnx", "--shape", "3"]).strides == [8, 16]


def test_a_size_of_three_sides_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence counts them."""
    with pytest.raises(SystemExit):
        cli.build(["add"]).parse_args(["add", "net.onnx", "--size", "3", "32", "32"])
    assert "give one side or height and width, not 3" in capsys.readouterr().err


@pytest.mark.parametrize("connect", [lambda *_: time.sleep(60), lambda *_: False])
def test_a_hub_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connect: Callable[..., Any]
) -> None:
    """One sentence in bounded time, whether the network refuses or swallows what is sent."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "_connects", connect)
    started = time.monotonic()
    said = refusal(tmp_path, "hf:nobody/nothing-of-this-name")
    assert time.monotonic() - started < 40, "the connection that hangs was waited for"
    assert said == (
        f"hf:nobody/nothing-of-this-name cannot be fetched: {hub.ENDPOINT} cannot be reached, and the cache does not "
        "hold it. Fetch the folder elsewhere (hf download) and give its path."
    )
    assert "HF_HUB_OFFLINE is set, and the cache" in refusal(tmp_path, "hf:nobody/nothing-of-this-name")
