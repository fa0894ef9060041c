"""ONNX files and options that are refused before a server is needed; what the sentence proposes is tried too."""

from __future__ import annotations

import re
import zipfile
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
from test_onnx import WORDS, tokenizer
from test_ways_out import HOW, python, read, refusal, unserved

from modelctl.errors import CommandError
from modelctl.graphs import networks as graphs
from modelctl.graphs import precision
from modelctl.sources import conversion, find
from modelctl.sources.draft import Draft

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
CLASSIFIER = ("--task", "image-classification")


def unchecked(path: Path, inputs: list[Any], outputs: list[Any]) -> Path:
    """Write a network of one Identity, whose inputs and outputs the checker of ONNX would not pass."""
    graph = helper.make_graph([node("Identity", ["x"], ["y"])], "g", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def means(path: Path, *shape: int | str, kind: int = FLOAT, classes: int = 4) -> Path:
    """Write a network that gives every item the mean of its numbers, [N, classes]."""
    nodes = [
        node("Cast", ["x"], ["numbers"], to=FLOAT),
        node("Flatten", ["numbers"], ["rows"]),
        node("ReduceMean", ["rows"], ["mean"], axes=[1]),
        node("MatMul", ["mean", "w"], ["y"]),
    ]
    given, made = [value("x", kind, ["N", *shape])], [value("y", FLOAT, ["N", classes])]
    return networks.save(path, nodes, given, made, {"w": weights(1, classes, spread=9)})


def typed(kind: int) -> Callable[[Path], Path]:
    """Return what writes a network whose numbers are of a type."""
    return lambda path: unchecked(path, [value("x", kind, ["N", 2])], [value("y", kind, ["N", 2])])


def sequence(path: Path) -> Path:
    """Write a network that returns a sequence."""
    made = helper.make_tensor_sequence_value_info("y", FLOAT, ["N", 2])
    return unchecked(path, [value("x", FLOAT, ["N", 2])], [made])


READ: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], str]] = {
    "a type that is not served": (
        typed(TensorProto.DOUBLE),
        (),
        "The input 'x' is of type DOUBLE; supported: FP32, FP16, UINT8, INT8, INT64, INT32, BOOL.",
    ),
    "the name of a class alone": (
        lambda path: unchecked(path, [value("x", FLOAT, ["N", 2])], [value("y", TensorProto.STRING, ["N"])]),
        (),
        "The output 'y' is of type STRING, which is not served: export its scores as numbers, and give the names by "
        "--labels.",
    ),
    "an output without a type": (
        lambda path: unchecked(path, [value("x", FLOAT, ["N", 2])], [onnx.ValueInfoProto(name="y")]),
        (),
        "The output 'y' has no type, which Triton cannot serve: export tensors.",
    ),
    "a sequence": (
        sequence,
        (),
        "is a sequence, which Triton cannot serve: export tensors (scikit-learn's exporter: zipmap=False).",
    ),
    "plugins of MMCV": (
        lambda path: unserved(path, "mmcv"),
        (),
        "it is of MMCV's plugins: export the network up to its raw head, without them.",
    ),
    "extensions by Microsoft's name": (
        lambda path: unserved(path, "com.microsoft.extensions"),
        (),
        "it is of onnxruntime-extensions: export the network without its pre- and postprocessing, which the steps here "
        "do.",
    ),
    "a single number for a picture": (
        lambda path: unchecked(path, [value("x", FLOAT, [])], [value("y", FLOAT, [])]),
        CLASSIFIER,
        "The input 'x' has no batch as its first axis: export it with one.",
    ),
    "a picture of whole numbers": (
        lambda path: means(path, 3, 8, 8, kind=TensorProto.INT32),
        CLASSIFIER,
        "The input 'x' is INT32; pictures come as FP32, FP16 or UINT8.",
    ),
    "a row for a picture": (
        lambda path: means(path, 4),
        (*CLASSIFIER, *HOW, "--labels", "{labels}"),
        "The input 'x' has 2 axes; a batch of pictures has four.",
    ),
    "a picture of one column": (
        lambda path: means(path, 1, 8, 1),
        (*CLASSIFIER, *HOW, "--labels", "{labels}"),
        "The input 'x' of shape [None, 1, 8, 1] does not tell its layout: give --layout.",
    ),
    "one free side": (
        lambda path: means(path, 3, 8, "wide"),
        (*HOW, "--labels", "{labels}"),
        "The network takes pictures of any size: give --size HEIGHT,WIDTH.",
    ),
    "a threshold beyond all scores": (
        lambda path: networks.yolo(path),
        (*HOW, "--decoder", "yolov8", "--labels", "{labels of 3}", "--score-threshold", "7"),
        "The options do not fit: postprocess.score_threshold Input should be less than or equal to 1.",
    ),
    "tokens of real numbers": (
        lambda path: unchecked(path, [value("input_ids", FLOAT, ["N", "L"])], [value("y", FLOAT, ["N", 4])]),
        ("--labels", "{labels}"),
        "The input 'input_ids' is FP32 [None, None]; tokens are INT64 or INT32 [batch, length]: give another --task.",
    ),
    "an output for each token": (
        lambda path: unchecked(path, [value("input_ids", INT64, ["N", "L"])], [value("y", INT64, ["N", "L", 4])]),
        ("--labels", "{labels}"),
        "A text classifier has one output [batch, classes]: give another --task.",
    ),
}


@pytest.mark.parametrize("case", READ)
def test_a_graph_is_refused(tmp_path: Path, case: str) -> None:
    """One sentence says which input, output or option it is."""
    make, words, sentence = READ[case]
    given = {"{labels}": labels(tmp_path, 4), "{labels of 3}": labels(tmp_path, 3)}
    path = make(tmp_path / "net.onnx")
    assert sentence in refusal(tmp_path, path, *(given.get(word, word) for word in words))


def test_sides_and_layouts_that_are_asked_for_are_taken(tmp_path: Path) -> None:
    """The options that two of the refusals propose."""
    rest = (*HOW, "--labels", labels(tmp_path, 4))
    wide = read(tmp_path, means(tmp_path / "wide.onnx", 3, 8, "wide"), *rest, "--size", "8,16")
    assert (wide.spec.preprocess.height, wide.spec.preprocess.width) == (8, 16)
    column = read(tmp_path, means(tmp_path / "column.onnx", 1, 8, 1), *CLASSIFIER, *rest, "--layout", "NCHW")
    assert column.spec.preprocess.dims == [1, 8, 1]


def test_a_network_of_tokens_without_a_class_is_served_by_its_tensors(tmp_path: Path) -> None:
    """Of all tasks, the other --task that is proposed is `none`."""
    nodes = [node("Gather", ["table", "input_ids"], ["vectors"])]
    given, made = [value("input_ids", INT64, ["N", "L"])], [value("vectors", FLOAT, ["N", "L", 5])]
    path = networks.save(tmp_path / "net.onnx", nodes, given, made, {"table": weights(9, 5)})
    assert "give another --task" in refusal(tmp_path, path, "--labels", labels(tmp_path, 5))
    assert read(tmp_path, path, "--task", "none").spec.task == "none"


def test_rows_of_a_text_that_are_no_batch(tmp_path: Path) -> None:
    """They are refused as classes, and served whole by --task none."""
    nodes = [
        node("Gather", ["table", "input_ids"], ["vectors"]),
        node("Reshape", ["vectors", "rows"], ["y"]),
    ]
    given, made = [value("input_ids", INT64, ["N", "L"])], [value("y", FLOAT, ["K", 3])]
    constants = {"table": weights(len(WORDS), 3), "rows": np.array([-1, 3], np.int64)}
    path = networks.save(tmp_path / "net.onnx", nodes, given, made, constants)
    rest = ("--tokenizer", tokenizer(tmp_path), "--max-length", "16", "--activation", "softmax")
    said = refusal(tmp_path, path, *rest, "--labels", labels(tmp_path, 3))
    assert said == (
        "The first axis of the output 'y' is not the batch: one text gives [16, 3]. Export the network with a batch as "
        "its first axis, or serve its tensors whole with --task none."
    )
    assert read(tmp_path, path, "--task", "none").spec.task == "none"


def places(path: Path, count: int) -> Path:
    """Write the small text network with a table of `count` places, which longer texts leave."""
    model = onnx.load(networks.reader(path, vocabulary=len(WORDS)))
    model.graph.node[0].output[0] = "words"
    front = [
        node("Shape", ["input_ids"], ["shape"]),
        node("Gather", ["shape", "one"], ["length"]),
        node("Range", ["zero", "length", "step"], ["at"]),
        node("Gather", ["places", "at"], ["shifts"]),
        node("Add", ["words", "shifts"], ["vectors"]),
    ]
    numbers = {"one": np.int64(1), "zero": np.int64(0), "step": np.int64(1), "places": weights(count, 5)}
    nodes = [model.graph.node[0], *front, *list(model.graph.node)[1:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in numbers.items())
    onnx.save(model, str(path))
    return path


def test_a_text_network_that_reads_fewer_tokens(tmp_path: Path) -> None:
    """The sentence names the length that was tried, and the option that helps."""
    path = places(tmp_path / "net.onnx", 20)
    rest = ("--tokenizer", tokenizer(tmp_path), "--labels", labels(tmp_path, 3), "--activation", "softmax")
    said = refusal(tmp_path, path, *rest)
    assert said.startswith("With 512 tokens: The network cannot be run: ")
    assert said.endswith(" If it reads fewer, give --max-length.")
    assert read(tmp_path, path, *rest, "--max-length", "20").spec.preprocess.max_length == 20


def test_more_tokens_than_a_network_of_fixed_length_reads(tmp_path: Path) -> None:
    path = networks.reader(tmp_path / "net.onnx", vocabulary=len(WORDS))
    model = onnx.load(path)
    for entry in model.graph.input:
        entry.type.tensor_type.shape.dim[1].dim_value = 24
    onnx.save(model, str(path))
    rest = ("--tokenizer", tokenizer(tmp_path), "--labels", labels(tmp_path, 3), "--activation", "softmax")
    said = refusal(tmp_path, path, *rest, "--max-length", "30")
    assert said == "The network reads 24 tokens at most, --max-length is 30."
    assert read(tmp_path, path, *rest).spec.preprocess.max_length == 24


def test_a_network_that_cannot_be_made_to_cut_its_padding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(What the surgery refuses is played.)"""

    def refuse(_: onnx.ModelProto) -> None:
        raise ValueError("no such\nnode")

    monkeypatch.setattr("modelctl.graphs.trim.trim_to_longest", refuse)
    path = networks.reader(tmp_path / "net.onnx", vocabulary=len(WORDS))
    rest = ("--tokenizer", tokenizer(tmp_path), "--labels", labels(tmp_path, 3), "--activation", "softmax")
    said = refusal(tmp_path, path, *rest)
    assert said == "The network cannot be made to cut its padding: no such node: export it again."


def test_labels_that_cannot_be_read(tmp_path: Path) -> None:
    path = networks.classifier(tmp_path / "net.onnx")
    said = refusal(tmp_path, path, *HOW, "--labels", tmp_path / "no.txt")
    assert said.startswith(f"The labels {tmp_path / 'no.txt'} cannot be read: ")


def branch(name: str, *nodes: Any) -> Any:
    """Return a branch of an If, whose output is not described."""
    return helper.make_graph(list(nodes), name, [], [onnx.ValueInfoProto(name=name)])


def test_an_output_whose_axes_depend_on_the_size(tmp_path: Path) -> None:
    """Nothing can be declared for it; with one size it could."""
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "last"], ["wide"]),
        node("Greater", ["wide", "limit"], ["large"]),
        node(
            "If",
            ["large"],
            ["y"],
            then_branch=branch("flat", node("Flatten", ["x"], ["flat"])),
            else_branch=branch("same", node("Identity", ["x"], ["same"])),
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", FLOAT, ["N", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [onnx.numpy_helper.from_array(np.int64(number), name) for name, number in (("last", 3), ("limit", 100))],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    said = refusal(tmp_path, path)
    assert said == "An output has another number of axes for inputs of another size: export it with one shape."


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = networks.classifier(tmp_path / "net.onnx")
    path.write_bytes(path.read_bytes().replace(b"pooled", b"\xff\xfeoled"))
    assert refusal(tmp_path, path, *HOW) == f"{path} cannot be read as ONNX: a name is not UTF-8"


def converted(draft: Draft, stored_as: str) -> str:
    """Return the sentence that refuses to store a draft's network."""
    with pytest.raises(CommandError) as caught:
        conversion.convert(draft, stored_as, None)
    return str(caught.value)


def test_a_tensor_model_is_not_converted(tmp_path: Path) -> None:
    """Omitting --precision, as proposed, is fp32."""
    draft = read(tmp_path, networks.two_towers(tmp_path / "net.onnx"))
    assert converted(draft, "fp16") == "A tensor model is stored as it is: omit --precision."
    conversion.convert(draft, "fp32", None)


def test_what_a_converter_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """(Its failure is played.)"""

    def fail(_: Path) -> None:
        raise RuntimeError("no kernel\nfor it")

    monkeypatch.setattr(precision, "_halve", fail)
    draft = read(tmp_path, networks.classifier(tmp_path / "net.onnx"), *HOW, "--labels", labels(tmp_path, 6))
    assert converted(draft, "fp16") == "The network cannot be stored as fp16: no kernel for it"


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    """They are noticed when the stored network answers."""
    model = onnx.load(networks.classifier(tmp_path / "net.onnx"))
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.extend([node("Sqrt", ["raw"], ["root"]), node("Log", ["root"], ["logits"])])
    onnx.save(model, str(tmp_path / "net.onnx"))
    rest = ("--labels", labels(tmp_path, 6), "--activation", "softmax")
    draft = read(tmp_path, tmp_path / "net.onnx", *HOW, *rest)
    with pytest.raises(CommandError) as caught:
        conversion.compare(draft, "fp32")
    assert str(caught.value) == (
        "The network gives numbers that are not finite (NaN or infinity): fix it or export it again."
    )


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names it and the command that installs it."""
    monkeypatch.setattr(find, "find_spec", lambda name: None if name == "torch" else object())
    (tmp_path / "config.json").write_text("{}")
    said = refusal(tmp_path, tmp_path)
    assert said == "torch is needed to read this source: run ./dev_start.sh --setup-only export."


def test_a_torchscript_file_that_is_damaged(tmp_path: Path) -> None:
    """An archive with code that PyTorch does not read; before that, sizes and all else that pictures need are asked."""
    path = tmp_path / "net.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/code/__torch__.py", "class Net: pass")
    said = refusal(tmp_path, path, "--scale", "1")
    assert said.endswith("(Pictures also need --resize, --mean, --std, --labels.)")
    said = refusal(tmp_path, path, "--shape", "3")
    assert re.match(re.escape(f"{path} is not a TorchScript file: ") + r"\S", said)


def test_programs_that_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporters of others end well and leave no file."""
    (tmp_path / "net.tflite").write_bytes(b"....TFL3")
    (tmp_path / "yolo.pt").write_bytes(b"weights")
    program = python(tmp_path, "exit 0")
    monkeypatch.setenv("TF2ONNX_PYTHON", program)
    monkeypatch.setenv("ULTRALYTICS_PYTHON", program)
    path = tmp_path / "net.tflite"
    assert refusal(tmp_path, path) == f"tf2onnx could not convert {path}: it wrote no file"
    path = tmp_path / "yolo.pt"
    assert refusal(tmp_path, path) == f"Ultralytics could not export {path}: it wrote no file"


def test_a_session_of_a_damaged_graph(tmp_path: Path) -> None:
    """What ONNX Runtime says of a graph in memory is passed on."""
    model = onnx.load(networks.classifier(tmp_path / "net.onnx"))
    model.graph.node[0].op_type = "Mystery"
    with pytest.raises(CommandError, match=r"^ONNX Runtime refuses the network: .*Mystery"):
        graphs.session(model)
