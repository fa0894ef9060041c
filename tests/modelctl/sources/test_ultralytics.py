"""`modelctl add` on Ultralytics' checkpoints, by a package that stands in for theirs, which is AGPL and never needed.

The stand-in takes the arguments that `add` passes, and writes a file with the metadata that theirs writes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import networks
import pytest
from sample_files import contents, labels, png, spec
from skimage import data
from test_onnx import in_picture, letterboxed, run, same_boxes

NAMES = {0: "label 0", 1: "label 1", 2: "label 2"}
METADATA = {"author": "Ultralytics", "task": "detect", "names": str(NAMES), "imgsz": "[64, 64]", "stride": "16"}
PACKAGE = """
import json, os, shutil, sys
class YOLO:
    def __init__(self, path):
        self.path = str(path)
        assert not os.path.dirname(self.path) or open(self.path, "rb").read() == b"weights"
    def export(self, **options):
        json.dump(options, open({asked!r}, "w"))
        print("Ultralytics 8.0: exporting", self.path)
        if {failure!r}:
            raise RuntimeError({failure!r})
        made = self.path.replace(".pt", ".onnx")
        shutil.copy({network!r}, made)
        return made
"""
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that makes a Python with the stand-in, which exports the file that it is given."""

    def make(network: Path, failure: str = "") -> Path:
        package, asked = tmp_path / "site" / "ultralytics", tmp_path / "asked.json"
        package.mkdir(parents=True)
        text = PACKAGE.format(asked=str(asked), network=str(network), failure=failure)
        (package / "__init__.py").write_text(text)
        python = tmp_path / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH={package.parent} exec {sys.executable} "$@"\n')
        python.chmod(0o755)
        monkeypatch.setenv("ULTRALYTICS_PYTHON", str(python))
        return asked

    return make


def by_opencv(array: Any, width: int, height: int) -> Any:
    """Resize as Ultralytics' LetterBox does."""
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR)


def checkpoint(folder: Path) -> str:
    """Write what stands for a checkpoint; return its path."""
    (folder / "yolo11n.pt").write_bytes(b"weights")
    return str(folder / "yolo11n.pt")


@pytest.mark.parametrize("free", [True, False])
def test_a_checkpoint_is_exported_by_the_users_own_package(
    command: Any, install: Install, served: Any, stack: Any, tmp_path: Path, free: bool
) -> None:
    """Classes, head, size and preparation are read from the metadata; the notice stands on screen and in the card."""
    network = networks.yolo(tmp_path / "theirs.onnx", free=free, metadata=METADATA)
    asked = install(network)
    result = command.run("add", checkpoint(tmp_path))
    assert result.code == 0, result.err
    assert json.loads(asked.read_text()) == {"format": "onnx", "dynamic": True, "simplify": False, "opset": 17}
    assert "AGPL-3.0" in result.err.splitlines()[1]
    assert "AGPL-3.0" in (stack.models / "yolo11n" / "MODEL_CARD.md").read_text()
    made = spec(stack.models, "yolo11n")
    assert made["preprocess"]["width"] == 64
    assert (made["preprocess"]["resample"], made["preprocess"]["alpha"]) == ("opencv_linear", "drop")
    assert (made["postprocess"]["iou_threshold"], made["postprocess"]["max_detections"]) == (0.7, 300)
    array = data.coffee()
    canvas, scale, corner = letterboxed(array, 64, by_opencv)
    head = run(network, images=(canvas / 255).transpose(2, 0, 1)[None].astype("float32"))[0][0].T.astype(float)
    expected = in_picture(array, head[:, :4], head[:, 4:].max(1), head[:, 4:].argmax(1), scale, corner, 0.7)
    same_boxes(served.detect("yolo11n", png(array)), expected, 5e-3)  # one grey level moves a score by so much
    assert [path.name for path in tmp_path.glob("yolo11n*")] == ["yolo11n.pt"], "the export lies beside the checkpoint"


def test_the_package_is_not_installed(
    command: Any, stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal names the package, its licence and how to point to it; nothing is changed."""
    monkeypatch.delenv("ULTRALYTICS_PYTHON", raising=False)
    before = contents(stack.models)
    result = command.run("add", checkpoint(tmp_path))
    assert result.code == 1
    assert "Notice: Ultralytics" in result.err
    assert "The package ultralytics (AGPL-3.0) exports this file and is not installed" in result.sentence
    assert "ULTRALYTICS_PYTHON" in result.sentence
    assert contents(stack.models) == before


@pytest.mark.parametrize(
    ("metadata", "failure", "sentence"),
    [
        (METADATA, "no such layer", "Ultralytics could not export"),
        (
            METADATA | {"task": "segment"},
            "",
            "an Ultralytics network for 'segment': only 'detect' and 'classify' can be served",
        ),
        (METADATA | {"names": "{0: "}, "", "metadata that Ultralytics wrote into the file cannot be read"),
        (METADATA | {"names": "{1: 'one'}"}, "", "metadata that Ultralytics wrote into the file cannot be read"),
        (METADATA | {"names": "{0: 'one'}"}, "", "The network has 3 classes, its file names 1: give --labels"),
        ({}, "", "does not say how its pictures were prepared"),
    ],
)
def test_what_it_makes_may_be_of_no_use(
    command: Any, install: Install, stack: Any, tmp_path: Path, metadata: dict[str, str], failure: str, sentence: str
) -> None:
    """Its own failure, other tasks, and metadata that cannot be read each end with a sentence."""
    install(networks.yolo(tmp_path / "theirs.onnx", metadata=metadata), failure)
    before = contents(stack.models)
    result = command.run("add", checkpoint(tmp_path))
    assert result.code == 1
    assert sentence in result.sentence
    assert failure in result.sentence
    assert contents(stack.models) == before


def test_a_python_named_from_where_one_is(
    command: Any, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path holds although the exporter runs elsewhere."""
    install(networks.yolo(tmp_path / "theirs.onnx", metadata=METADATA))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ULTRALYTICS_PYTHON", "./python")
    result = command.run("add", checkpoint(tmp_path))
    assert result.code == 0, result.err


def test_a_python_that_cannot_be_started(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names what was tried."""
    monkeypatch.setenv("ULTRALYTICS_PYTHON", str(tmp_path / "nothing"))
    result = command.run("add", checkpoint(tmp_path))
    assert result.code == 1
    assert f"Ultralytics could not be run by {tmp_path / 'nothing'}" in result.sentence


def test_their_onnx_file_is_known_without_the_package(
    command: Any, served: Any, stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export that is there already needs no option; labels of one's own overrule the file's."""
    monkeypatch.setenv("ULTRALYTICS_PYTHON", "/nonexistent")
    path = networks.yolo(tmp_path / "export.onnx", free=True, metadata=METADATA | {"names": "{0: 'a', 1: 'b', 2: 'c'}"})
    assert command("add", str(path), "--labels", labels(tmp_path, 3)) == 0
    found = served.detect("export", png(data.coffee()))
    assert {label for label, _, _ in found} <= set(NAMES.values())
    assert found
