"""Files that chance has damaged, and what YAML allows: modelctl ends with a sentence and never with a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
from test_onnx import tokenizer
from test_refusals import HOW, net, text


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


def test_damaged_networks_end_in_sentences(command: Any, tmp_path: Path) -> None:
    """160 damaged files: each is added, since what was damaged does not matter, or refused by a sentence.

    Nothing is asked of Triton here: the damage is to be found before.
    """
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
        result = command.run("add", *arguments, "--name", f"m{number}", "--no-load")
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
    assert command("add", *net(tmp_path, *HOW), "--no-load") == 0
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
