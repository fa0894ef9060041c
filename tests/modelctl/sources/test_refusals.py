"""What `modelctl add` refuses: one sentence says at which step and what to do, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import onnx
import pytest
from networks import node, value
from onnx import TensorProto, helper
from sample_files import contents, labels
from test_onnx import UNIT, WORDS, tokenizer

HOW = ("--resize", "stretch", *UNIT)
Make = Callable[[Path], tuple[str, ...]]


def file(folder: Path, name: str, content: bytes) -> str:
    """Write a file; return its path."""
    (folder / name).write_bytes(content)
    return str(folder / name)


def net(folder: Path, *options: str, labelled: bool = True, **how: Any) -> tuple[str, ...]:
    """Return the small classifier with options."""
    path = networks.classifier(folder / "net.onnx", **how)
    return (str(path), *options, *(("--labels", labels(folder, 6)) if labelled else ()))


def text(folder: Path, *options: str, masked: bool = True) -> tuple[str, ...]:
    """Return the small text network with options."""
    path = networks.reader(folder / "text.onnx", vocabulary=len(WORDS), masked=masked)
    return (str(path), *options, "--labels", labels(folder, 3), "--activation", "softmax")


def odd(folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], domain: str = "") -> tuple[str, ...]:
    """Return a network that the checker of ONNX would not pass."""
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    model = helper.make_model(helper.make_graph(nodes, "odd", inputs, outputs), opset_imports=opsets, ir_version=8)
    onnx.save(model, folder / "odd.onnx")
    return (str(folder / "odd.onnx"),)


def changed(folder: Path, change: Callable[[onnx.ModelProto], None]) -> tuple[str, ...]:
    """Return the small classifier with a change."""
    arguments = net(folder, *HOW)
    model = onnx.load(arguments[0])
    change(model)
    onnx.save(model, arguments[0])
    return arguments


X, Y = value("x", TensorProto.FLOAT, ["N", 2]), value("y", TensorProto.FLOAT, ["N", 2])

READ: dict[str, tuple[Make, str]] = {
    "no such file": (lambda folder: (str(folder / "no.onnx"),), "There is no file"),
    "no such checkpoint": (lambda folder: (str(folder / "no.pt"),), "There is no file"),
    "no such source": (lambda _: ("nothing_known",), "is not a source. Give a recipe"),
    "a folder": (lambda folder: (str(folder), "--name", "a"), "is not a source. Give a recipe"),
    "a folder called as a file": (
        lambda folder: ((folder / "a.onnx").mkdir(), (str(folder / "a.onnx"),))[1],
        "There is no file",
    ),
    "a checkpoint of nothing": (
        lambda folder: (file(folder, "config.json", b"{}"), (str(folder), "--name", "a"))[1],
        "is not a checkpoint that transformers can read",
    ),
    "an unknown repository": (lambda _: ("hf:nobody/nothing",), "cannot be fetched"),
    "text for ONNX": (lambda folder: (file(folder, "a.onnx", b"hello, world"),), "cannot be read as ONNX"),
    "nothing for ONNX": (lambda folder: (file(folder, "a.onnx", b""),), "is empty: fetch or export it again"),
    "half a file": (
        lambda folder: (
            file(folder, "a.onnx", networks.classifier(folder / "b.onnx").read_bytes()[:300]),
            *HOW,
        ),
        "is cut off: it has 300 bytes, and at least ",
    ),
    "a name that is no text": (
        lambda folder: (
            file(
                folder,
                "a.onnx",
                networks.classifier(folder / "b.onnx").read_bytes().replace(b"pooled", b"\xff\xfeoled"),
            ),
            *HOW,
        ),
        "cannot be read as ONNX",
    ),
    "no operators": (lambda folder: odd(folder, [], [X], [Y]), "holds no network: it has 0 operators"),
    "a custom operator": (
        lambda folder: odd(folder, [node("Mystery", ["x"], ["y"], domain="acme")], [X], [Y], "acme"),
        "uses the custom operator acme.Mystery",
    ),
    "an unknown operator": (
        lambda folder: odd(folder, [node("Mystery", ["x"], ["y"])], [X], [Y]),
        "ONNX Runtime refuses the network",
    ),
    "strings": (
        lambda folder: odd(
            folder,
            [node("Identity", ["x"], ["y"])],
            [value("x", TensorProto.STRING, ["N", 2])],
            [value("y", TensorProto.STRING, ["N", 2])],
        ),
        "is of type STRING",
    ),
    "a sequence": (
        lambda folder: odd(
            folder,
            [node("SequenceConstruct", ["x"], ["y"])],
            [X],
            [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["N", 2])],
        ),
        "is a sequence, which Triton cannot serve: export tensors",
    ),
    "no batch": (
        lambda folder: odd(
            folder,
            [node("Identity", ["x"], ["y"])],
            [value("x", TensorProto.FLOAT, [])],
            [value("y", TensorProto.FLOAT, [])],
        ),
        "'x' is a single number without axes, which Triton cannot serve: export it with shape [1]",
    ),
    "an endless item": (
        lambda folder: odd(
            folder,
            [node("Identity", ["x"], ["y"])],
            [value("x", TensorProto.FLOAT, ["N", 2**40])],
            [value("y", TensorProto.FLOAT, ["N", 2**40])],
        ),
        "The input 'x' of shape [None, 1099511627776] has over 67,108,864 numbers an item",
    ),
    "a batch of four": (lambda folder: net(folder, *HOW, batch=4, fixed_inside=True), "takes exactly 4 items"),
    "missing weights": (
        lambda folder: changed(folder, lambda model: model.graph.initializer.pop()),
        "ONNX Runtime refuses the network",
    ),
    "missing labels": (
        lambda folder: net(folder, *HOW, labelled=False),
        "does not name its 6 classes: give --labels FILE",
    ),
    "too few labels": (
        lambda folder: net(folder, *HOW, "--labels", labels(folder, 4), labelled=False),
        "has 6 classes, ",
    ),
    "one label too few": (
        lambda folder: net(folder, *HOW, "--labels", labels(folder, 5), labelled=False),
        "The network has 6 classes, ",
    ),
    "one label too few for a detector": (
        lambda folder: (
            str(networks.yolo(folder / "y.onnx")),
            *(*HOW, "--decoder", "yolov8", "--labels", labels(folder, 2)),
        ),
        "The network has 3 classes, ",
    ),
    "one label too few for texts": (
        lambda folder: (*text(folder, "--tokenizer", tokenizer(folder)), "--labels", labels(folder, 2)),
        "The network has 3 classes, ",
    ),
    "an option for boxes on a classifier": (
        lambda folder: net(folder, *HOW, "--iou-threshold", "0.5", "--decoder", "yolov8"),
        "--decoder, --iou-threshold would do nothing for a classifier of pictures: omit them.",
    ),
    "an option for texts on a detector": (
        lambda folder: (
            str(networks.yolo(folder / "y.onnx")),
            *(*HOW, "--decoder", "yolov8", "--labels", labels(folder, 3), "--max-length", "9"),
        ),
        "--max-length would do nothing for a detector: omit it.",
    ),
    "suppression after suppression": (
        lambda folder: (
            str(networks.end_to_end(folder / "y.onnx")),
            *(*HOW, "--decoder", "end_to_end", "--labels", labels(folder, 3), "--iou-threshold", "0.5"),
        ),
        "--iou-threshold would do nothing for the decoder end_to_end: omit it.",
    ),
    "an option for pictures on texts": (
        lambda folder: (*text(folder, "--tokenizer", tokenizer(folder)), "--scale", "1/255"),
        "--scale would do nothing for a text network: omit it.",
    ),
    "labels of tensors": (
        lambda folder: (str(networks.two_towers(folder / "t.onnx")), "--labels", labels(folder, 3)),
        "so --labels would do nothing: omit it to serve the network by its tensors",
    ),
    "a scale of bytes": (
        lambda folder: (
            str(networks.bytes_classifier(folder / "b.onnx", classes=3, height=16, width=16)),
            *("--resize", "stretch", "--scale", "1/255", "--labels", labels(folder, 3)),
        ),
        "--scale would do nothing for the input 'pixels' of UINT8",
    ),
    "a shape of a file that holds it": (
        lambda folder: net(folder, *HOW, "--shape", "3,32,32"),
        "--shape would do nothing for an ONNX file",
    ),
    "no labels' file": (
        lambda folder: net(folder, *HOW, "--labels", str(folder / "no.txt"), labelled=False),
        "cannot be read",
    ),
    "an empty label": (
        lambda folder: net(folder, *HOW, "--labels", file(folder, "l.txt", b"a\n\nb\n"), labelled=False),
        "have an empty line 2",
    ),
    "labels in Latin-1": (
        lambda folder: net(folder, *HOW, "--labels", file(folder, "l.txt", b"\xe9t\xe9\n"), labelled=False),
        "cannot be read",
    ),
    "scores of each class by itself": (
        lambda folder: net(folder, *HOW, ending="sigmoid"),
        "lie between 0 and 1 and do not sum to 1, so each class may have its own: give --activation none when",
    ),
    "one class": (
        lambda folder: net(folder, *HOW, "--labels", labels(folder, 1), labelled=False, classes=1),
        "has one class, and a softmax over one class is always 1: give --activation sigmoid, or none",
    ),
    "a softmax of one class": (
        lambda folder: net(
            folder, *HOW, "--activation", "softmax", "--labels", labels(folder, 1), labelled=False, classes=1
        ),
        "has one class, and a softmax over one class is always 1",
    ),
    "no preparation": (lambda folder: net(folder), "give --resize, --scale, --mean, --std"),
    "another size": (lambda folder: net(folder, *HOW, "--size", "64", "64"), "takes pictures of 32 x 32, not 64 x 64"),
    "another layout": (
        lambda folder: net(folder, *HOW, "--layout", "NHWC"),
        "is not a batch of RGB or grey pictures in NHWC",
    ),
    "a crop of nothing": (
        lambda folder: net(folder, *HOW, "--resize-to", "40"),
        "The options do not fit: resize_to",
    ),
    "any size, undecided": (
        lambda folder: (
            str(networks.yolo(folder / "y.onnx", free=True)),
            *(*HOW, "--decoder", "yolov8", "--labels", labels(folder, 3)),
        ),
        "takes pictures of any size: give --size",
    ),
    "a classifier for a detector": (
        lambda folder: net(folder, *HOW, "--task", "object-detection", "--decoder", "yolov8"),
        "no head of the decoder yolov8, because its first axis of 1 leaves no room for classes",
    ),
    "a detector for a classifier": (
        lambda folder: (str(networks.yolo(folder / "y.onnx")), *HOW, "--task", "image-classification"),
        "A classifier has one output [batch, classes]",
    ),
    "no room for classes": (
        lambda folder: (
            str(networks.yolo(folder / "y.onnx", classes=1, stride=32)),
            *(*HOW, "--decoder", "yolov5", "--labels", labels(folder, 1)),
        ),
        "no head of the decoder yolov5, because its last axis of 4 leaves no room for classes",
    ),
    "one head for two": (
        lambda folder: (
            str(networks.yolo(folder / "y.onnx")),
            *(*HOW, "--decoder", "detr", "--labels", labels(folder, 3)),
        ),
        "no head of the decoder detr, because it writes two outputs, not 1",
    ),
    "a picture for a text": (
        lambda folder: net(folder, "--task", "text-classification"),
        "A text network takes input_ids",
    ),
    "a text for a picture": (
        lambda folder: text(folder, "--task", "image-classification"),
        "A network for pictures has one input",
    ),
    "no tokenizer": (lambda folder: text(folder), "give --tokenizer tokenizer.json"),
    "a false tokenizer": (
        lambda folder: text(folder, "--tokenizer", file(folder, "t.json", b"{}")),
        "is not a tokenizer.json",
    ),
    "padding that counts": (
        lambda folder: text(folder, "--tokenizer", tokenizer(folder), "--max-length", "16", masked=False),
        "answer changes with the padding behind a text",
    ),
    "a batch of zero": (
        lambda folder: net(folder, *HOW, "--max-batch-size", "0"),
        "--max-batch-size 0 serves tensors whole, without a task: add --task none, or give 1 or more",
    ),
    "no examples": (
        lambda folder: net(folder, *HOW, "--precision", "int8", "--examples", str(folder / "no")),
        "cannot be read",
    ),
    "examples that are no pictures": (
        lambda folder: net(folder, *HOW, "--precision", "int8", "--examples", str(folder)),
        "There are no pictures in",
    ),
}


@pytest.mark.parametrize("case", READ)
def test_a_bad_source_or_option(command: Any, stack: Any, tmp_path: Path, case: str) -> None:
    """One sentence with the step, exit code 1, and every byte of the repository as before."""
    make, sentence = READ[case]
    arguments = make(tmp_path)
    before = contents(stack.models)
    result = command.run("add", *arguments)
    assert result.code == 1
    assert sentence in result.sentence, result.err
    assert "was not added, at the step '" in result.sentence
    assert result.sentence.endswith("The repository is as before.")
    assert "Traceback" not in result.err
    assert result.out == ""
    assert contents(stack.models) == before
    assert not list(stack.folder.glob(".modelctl-*"))


def test_a_network_that_cannot_be_written(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What protobuf says is passed on."""

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB: 2300000000")

    arguments = net(tmp_path, *HOW)
    monkeypatch.setattr("modelctl.graphs.networks.onnx.save", refuse)
    result = command.run("add", *arguments)
    assert result.code == 1
    assert "The network cannot be stored as ONNX: Message onnx.ModelProto exceeds" in result.sentence


EARLY: dict[str, tuple[Make, int, str]] = {
    "a name that is taken": (lambda folder: net(folder, "--name", "simple_net"), 1, "simple_net exists"),
    "a recipe's name that is taken": (lambda _: ("simple_net",), 1, "simple_net exists"),
    "a step's name": (
        lambda folder: net(folder, "--name", "minilm_sentiment_network"),
        1,
        "minilm_sentiment_network exists",
    ),
    "a path for a name": (lambda folder: net(folder, "--name", "../outside"), 1, "is not a model name"),
    "a hidden name": (lambda folder: net(folder, "--name", ".hidden"), 1, "is not a model name"),
    "an empty name": (lambda _: ("..",), 1, "'' is not a model name"),
    "words for a name": (lambda folder: net(folder, "--name", "two words"), 1, "is not a model name"),
    "a line for a name": (lambda folder: net(folder, "--name", "a\n"), 1, "is not a model name"),
    "a long name": (lambda folder: net(folder, "--name", "a" * 101), 1, "is not a model name"),
    "no repository": (lambda folder: (*net(folder), "--models", str(folder / "no")), 1, "There is no model repository"),
    "a file for a repository": (
        lambda folder: (*net(folder), "--models", file(folder, "models", b"")),
        1,
        "There is no model repository",
    ),
    "a port that is none": (lambda folder: (*net(folder), "--grpc-port", "abc"), 1, "'abc' is not a port"),
    "an unknown task": (lambda folder: (*net(folder), "--task", "magic"), 2, "argument --task: invalid choice"),
    "an unknown precision": (lambda folder: (*net(folder), "--precision", "fp4"), 2, "argument --precision"),
    "an unknown option": (lambda folder: (*net(folder), "--speed", "high"), 2, "unrecognized arguments: --speed"),
    "a scale of no number": (lambda folder: (*net(folder), "--scale", "1/0"), 2, "'1/0' is not a number: give one"),
    "a mean of two": (lambda folder: (*net(folder), "--mean", "1,2"), 2, "give one number or three, not 2"),
    "a division by zero": (lambda folder: (*net(folder), "--std", "0"), 2, "a divisor cannot be 0"),
    "a size of nothing": (
        lambda folder: (*net(folder), "--size", "0", "5"),
        2,
        "'0' is not a size: give whole numbers",
    ),
    "a shape of words": (lambda folder: (*net(folder), "--shape", "a,b"), 2, "'a' is not a size: give whole numbers"),
}


@pytest.mark.parametrize("case", EARLY)
def test_what_is_refused_before_anything_is_read(command: Any, stack: Any, tmp_path: Path, case: str) -> None:
    """Names, places and options that cannot be."""
    make, code, sentence = EARLY[case]
    arguments = make(tmp_path)
    if "--models" in arguments:  # the fixture gives its own last; the first of two counts not
        command.models = Path(arguments[-1])
        arguments = arguments[:-2]
    before = contents(stack.models)
    result = command.run("add", *arguments)
    assert result.code == code
    assert sentence in result.sentence, result.err
    assert "Traceback" not in result.err
    assert contents(stack.models) == before


def test_a_folder_that_cannot_be_written(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names it. (As root everything can be written, so the refusal of the system is played.)"""
    (tmp_path / "place" / "models").mkdir(parents=True)
    command.models = tmp_path / "place" / "models"

    monkeypatch.setattr("os.access", lambda *_: False)
    result = command.run("add", *net(tmp_path, *HOW))
    assert result.code == 1
    assert f"{command.models} cannot be written" in result.sentence
