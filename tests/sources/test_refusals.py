"""What `modelctl add` does not add: one sentence says at which step and what to do, and nothing is left behind.

Bad sources and options, a load that fails, Ctrl-C at every step, and files that chance has damaged.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest
from networks import node, value
from onnx import TensorProto, helper
from sample_files import contents, labels
from test_onnx import UNIT, WORDS, tokenizer

from modelctl.sources.draft import Order

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
    return (str(path), *options, "--labels", labels(folder, 3))


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
    "no such source": (lambda _: ("nothing_known",), "is no source: give a recipe"),
    "a folder": (lambda folder: (str(folder), "--name", "a"), "is no source: give a recipe"),
    "a folder called as a file": (
        lambda folder: ((folder / "a.onnx").mkdir(), (str(folder / "a.onnx"),))[1],
        "There is no file",
    ),
    "a checkpoint of nothing": (
        lambda folder: (file(folder, "config.json", b"{}"), (str(folder), "--name", "a"))[1],
        "is no checkpoint that transformers can read",
    ),
    "an unknown repository": (lambda _: ("hf:nobody/nothing",), "cannot be fetched"),
    "text for ONNX": (lambda folder: (file(folder, "a.onnx", b"hello, world"),), "cannot be read as ONNX"),
    "nothing for ONNX": (lambda folder: (file(folder, "a.onnx", b""),), "holds no network"),
    "half a file": (
        lambda folder: (
            file(folder, "a.onnx", networks.classifier(folder / "b.onnx").read_bytes()[:300]),
            *HOW,
        ),
        "cannot be read as ONNX",
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
        "has no batch as its first axis",
    ),
    "a batch alone": (
        lambda folder: odd(
            folder,
            [node("Identity", ["x"], ["y"])],
            [value("x", TensorProto.FLOAT, ["N"])],
            [value("y", TensorProto.FLOAT, ["N"])],
        ),
        "has no batch before its sizes",
    ),
    "a batch of four": (lambda folder: net(folder, *HOW, batch=4), "takes 4 items, no more and no fewer"),
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
    "no preparation": (lambda folder: net(folder), "give --resize, --scale, --mean, --std"),
    "another size": (lambda folder: net(folder, *HOW, "--size", "64", "64"), "takes pictures of 32 x 32, not 64 x 64"),
    "another layout": (lambda folder: net(folder, *HOW, "--layout", "NHWC"), "is no batch of RGB pictures in NHWC"),
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
    "no decoder": (
        lambda folder: (str(networks.yolo(folder / "y.onnx")), *HOW, "--labels", labels(folder, 3)),
        "give --decoder, one of",
    ),
    "a classifier for a detector": (
        lambda folder: net(folder, *HOW, "--task", "object-detection", "--decoder", "yolov8"),
        "reads one output with three axes",
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
        "has no room for classes: is the decoder yolov5 right?",
    ),
    "one head for two": (
        lambda folder: (
            str(networks.yolo(folder / "y.onnx")),
            *(*HOW, "--decoder", "detr", "--labels", labels(folder, 3)),
        ),
        "The decoder detr reads two outputs",
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
        "is no tokenizer.json",
    ),
    "padding that counts": (
        lambda folder: text(folder, "--tokenizer", tokenizer(folder), "--max-length", "16", masked=False),
        "answer changes with the padding behind a text",
    ),
    "a batch of zero": (
        lambda folder: net(folder, *HOW, "--max-batch-size", "0"),
        "The options do not fit: network.batching.max_batch_size",
    ),
    "no examples": (
        lambda folder: net(folder, *HOW, "--precision", "int8", "--examples", str(folder / "no")),
        "cannot be read",
    ),
    "examples that are no pictures": (
        lambda folder: net(folder, *HOW, "--precision", "int8", "--examples", str(folder)),
        "There is nothing to ask about",
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


EARLY: dict[str, tuple[Make, int, str]] = {
    "a name that is taken": (lambda folder: net(folder, "--name", "simple_net"), 1, "simple_net is there"),
    "a recipe's name that is taken": (lambda _: ("simple_net",), 1, "simple_net is there"),
    "a step's name": (
        lambda folder: net(folder, "--name", "minilm_sentiment_network"),
        1,
        "minilm_sentiment_network is there",
    ),
    "a path for a name": (lambda folder: net(folder, "--name", "../outside"), 1, "is no name for a model"),
    "a hidden name": (lambda folder: net(folder, "--name", ".hidden"), 1, "is no name for a model"),
    "an empty name": (lambda _: ("..",), 1, "'' is no name for a model"),
    "words for a name": (lambda folder: net(folder, "--name", "two words"), 1, "is no name for a model"),
    "a line for a name": (lambda folder: net(folder, "--name", "a\n"), 1, "is no name for a model"),
    "a long name": (lambda folder: net(folder, "--name", "a" * 101), 1, "is no name for a model"),
    "no repository": (lambda folder: (*net(folder), "--models", str(folder / "no")), 1, "There is no model repository"),
    "a file for a repository": (
        lambda folder: (*net(folder), "--models", file(folder, "models", b"")),
        1,
        "There is no model repository",
    ),
    "a port that is none": (lambda folder: (*net(folder), "--grpc-port", "abc"), 1, "'abc' is no port"),
    "an unknown task": (lambda folder: (*net(folder), "--task", "magic"), 2, "argument --task: invalid choice"),
    "an unknown precision": (lambda folder: (*net(folder), "--precision", "fp4"), 2, "argument --precision"),
    "an unknown option": (lambda folder: (*net(folder), "--speed", "high"), 2, "unrecognized arguments: --speed"),
    "a scale of no number": (lambda folder: (*net(folder), "--scale", "1/0"), 2, "'1/0' is no number: give one"),
    "a mean of two": (lambda folder: (*net(folder), "--mean", "1,2"), 2, "give one number or three, not 2"),
    "a division by zero": (lambda folder: (*net(folder), "--std", "0"), 2, "nothing can be divided by 0"),
    "a size of nothing": (lambda folder: (*net(folder), "--size", "0", "5"), 2, "'0' is no size: give whole numbers"),
    "a shape of words": (lambda folder: (*net(folder), "--shape", "a,b"), 2, "'a' is no size: give whole numbers"),
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

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    result = command.run("add", *net(tmp_path, *HOW))
    assert result.code == 1
    assert f"{tmp_path / 'place'} cannot be written (Permission denied)" in result.sentence


BROKEN = """
class TritonPythonModel:
    def initialize(self, args):
        {body}
"""


@pytest.fixture
def backend(stack: Any) -> Any:
    """Return a function that puts another backend in the place of the last step's; the real one comes back."""
    place = stack.state / "backends" / "classification_postprocess"
    real = place.readlink()

    def put(body: str) -> None:
        place.unlink()
        place.mkdir()
        (place / "model.py").write_text(BROKEN.format(body=body))

    yield put
    shutil.rmtree(place)
    place.symlink_to(real)


def test_a_load_that_fails_is_undone(
    command: Any, served: Any, stack: Any, tmp_path: Path, backend: Callable[[str], None]
) -> None:
    """Triton's own reason is told; the steps that did load are unloaded, and the folders are gone."""
    backend("raise ValueError('the last step is broken')")
    before = contents(stack.models)
    result = command.run("add", *net(tmp_path, *HOW))
    assert result.code == 1
    assert "at the step 'load': Triton does not load net" in result.sentence
    assert "the last step is broken" in result.sentence
    assert "Traceback" not in result.err
    assert contents(stack.models) == before
    time.sleep(1)
    assert "READY" not in {state for name, state in served.index().items() if name.startswith("net")}


def test_an_answer_that_is_another_is_undone(
    command: Any, served: Any, stack: Any, tmp_path: Path, backend: Callable[[str], None]
) -> None:
    """A step that loads and fails on every request is noticed when the model is asked."""
    backend("pass\n    def execute(self, requests):\n        raise ValueError('this step never works')")
    before = contents(stack.models)
    result = command.run("add", *net(tmp_path, *HOW))
    assert result.code == 1
    assert "at the step 'ask': The served model fails" in result.sentence
    assert contents(stack.models) == before
    time.sleep(1)
    assert "READY" not in {state for name, state in served.index().items() if name.startswith("net")}


def start(stack: Any, *arguments: str) -> subprocess.Popen[str]:
    """Start `modelctl add` in a process of its own."""
    command = [sys.executable, "-m", "modelctl", "add", *arguments, "--models", str(stack.models)]
    return subprocess.Popen(
        command, env={**os.environ, **stack.environment()}, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("step", "number"),
    [(1, signal.SIGINT), (3, signal.SIGINT), (6, signal.SIGINT), (7, signal.SIGINT), (6, signal.SIGTERM)],
)
def test_ctrl_c_leaves_nothing(served: Any, stack: Any, tmp_path: Path, step: int, number: signal.Signals) -> None:
    """At any step, while Triton still loads it too: no file, no served model, one sentence."""
    before = contents(stack.models)
    process = start(stack, *net(tmp_path, *HOW, "--name", "halted"))
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith(f"[{step}/7]"):
            process.send_signal(number)
            if step == 6:  # an impatient user
                time.sleep(0.05)
                process.send_signal(number)
            break
    said += process.communicate(timeout=60)[1]
    # The second signal may come when the sentence has been said, and end the process itself.
    assert process.returncode in ((1, -number) if step == 6 else (1,)), said
    assert "modelctl: halted was not added, at the step '" in said
    assert said.endswith("': stopped. The repository is as before.\n")
    assert "Traceback" not in said
    assert contents(stack.models) == before
    assert not list(stack.folder.glob(".modelctl-*"))
    time.sleep(1.5)
    assert "READY" not in {state for name, state in served.index().items() if name.startswith("halted")}


def test_somebody_else_is_faster(command: Any, stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the model's name that appears meanwhile is left alone."""
    other = stack.models / "net_network"

    def late(order: Order) -> Any:
        other.mkdir()
        (other / "theirs").write_text("kept")
        return draft(order)

    from modelctl.sources import find

    draft = find.draft
    monkeypatch.setattr(find, "draft", late)
    result = command.run("add", *net(tmp_path, *HOW))
    assert result.code == 1
    assert "was made by somebody else meanwhile: give another --name" in result.sentence
    assert [path.name for path in stack.models.glob("net*")] == ["net_network"]
    assert (other / "theirs").read_text() == "kept"


def mutated(data: bytes, source: np.random.Generator) -> bytes:
    """Return bytes with a few of them changed, cut, doubled or lost."""
    made = bytearray(data)
    for _ in range(int(source.integers(1, 6))):
        at = int(source.integers(0, len(made)))
        match int(source.integers(0, 5)):
            case 0:
                made[at] = int(source.integers(0, 256))
            case 1:
                made[at] ^= 1 << int(source.integers(0, 8))
            case 2:
                del made[at : at + int(source.integers(1, 20))]
            case 3:
                made[at:at] = made[at : at + int(source.integers(1, 20))]
            case _:
                made = made[: max(at, 1)] if source.random() < 0.2 else made
    return bytes(made)


def test_damaged_networks_end_in_sentences(
    command: Any, stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """160 damaged files: each is added, since what was damaged does not matter, or refused by a sentence.

    Nothing is asked of Triton here: the damage is to be found before.
    """
    monkeypatch.setattr("modelctl.loading.reach", lambda port: None)
    command.models = tmp_path / "models"
    command.models.mkdir()
    whole = [
        (net(tmp_path, *HOW), (tmp_path / "net.onnx").read_bytes()),
        ((str(networks.two_towers(tmp_path / "towers.onnx")),), (tmp_path / "towers.onnx").read_bytes()),
        (
            text(tmp_path, "--tokenizer", tokenizer(tmp_path), "--max-length", "8"),
            (tmp_path / "text.onnx").read_bytes(),
        ),
        (
            (str(networks.yolo(tmp_path / "yolo.onnx", metadata=YOLO)), "--precision", "fp16"),
            (tmp_path / "yolo.onnx").read_bytes(),
        ),
    ]
    source = np.random.default_rng(0)
    codes = []
    for number in range(160):
        arguments, data = whole[number % len(whole)]
        Path(arguments[0]).write_bytes(mutated(data, source))
        result = command.run("add", *arguments, "--name", f"m{number}")
        codes.append(result.code)
        assert result.code in (0, 1), result.err
        assert "Traceback" not in result.err
        if result.code:
            assert result.sentence.startswith(f"m{number} was not added, at the step '"), result.err
            assert not list(command.models.glob(f"m{number}*"))
    assert 20 <= sum(codes) <= 150, "the damage is always the same"


YOLO = {"author": "Ultralytics", "task": "detect", "names": "{0: 'a', 1: 'b', 2: 'c'}", "imgsz": "[64, 64]"}


ODD = {
    "nothing": b"",
    "a list": b"- 1\n- 2\n",
    "a word": b"model\n",
    "a number": b"1e999\n",
    "no UTF-8": b"name: \xff\xfe\n",
    "a control character": b"name: \x00\n",
    "two documents": b"name: net\n---\nname: net\n",
    "a tag": b"name: !!python/object:os.system [ls]\n",
    "a date for a name": b"name: 2001-02-30\ntask: none\n",
    "a number that is none": b"name: !!int abc\n",
    "twice the same key": b"name: net\nname: net\n",
    "a list for a key": b"? [a, b]\n: c\n",
    "a list in itself": b"name: &a [*a]\n",
    "a map in itself": b"&a\nname: net\ntask: none\nsource: *a\nnetwork: *a\n",
    "an alias of nothing": b"name: *nothing\n",
    "a merge of nothing": b"<<: 5\nname: net\n",
    "brackets without end": b"[" * 1200,
    "a task that is a list": b"name: net\ntask: [none]\n",
    "another name": b"name: other\ntask: none\nsource: {origin: a}\nnetwork: {inputs: {}, outputs: {}}\n",
}


@pytest.mark.parametrize("case", ODD)
def test_odd_specs_end_in_sentences(command: Any, tmp_path: Path, case: str) -> None:
    """What YAML allows, and what it does not: `render` says in which file something is wrong."""
    path = tmp_path / "models" / "net" / "model.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(ODD[case])
    command.models = tmp_path / "models"
    result = command.run("render", "--check")
    assert result.code == 1
    assert result.err.startswith(f"modelctl: {path}"), result.err
    assert "Traceback" not in result.err


def test_damaged_specs_end_in_sentences(command: Any, tmp_path: Path) -> None:
    """80 damaged model.yaml: `render` either reads them or says what is wrong; so do `list` and `lint`."""
    command.models = tmp_path / "models"
    command.models.mkdir()
    assert command("add", *net(tmp_path, *HOW), "--grpc-port", "1") == 0
    path = command.models / "net" / "model.yaml"
    whole, source = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(80):
        path.write_bytes(mutated(whole, source))
        result = command.run("render", "--check")
        assert result.code in (0, 1)
        if result.err:
            refused += 1
            assert result.err.startswith("modelctl: ")
            assert str(path.parent) in result.err
        assert "Traceback" not in result.err
        assert command.run("list", "--grpc-port", "1").code == 0
    assert refused >= 20
