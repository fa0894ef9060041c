"""Files that are no whole ONNX file are called what they are, and weights beside a network are found or named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest

from modelctl.errors import CommandError
from modelctl.graphs import external
from modelctl.graphs import networks as graphs

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"
PIXELS = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty: fetch or export it again"),
        (POINTER, "is a pointer of Git LFS, not the network: run `git lfs pull`"),
        (b"<!DOCTYPE html><html>Not found</html>", "is a web page, not a network: download the file itself"),
        (b"PK\x03\x04rest", "is an archive: unpack it"),
        (b"hello, world", "cannot be read as ONNX"),
    ],
)
def test_a_file_is_called_what_it_is(tmp_path: Path, data: bytes, sentence: str) -> None:
    """One sentence says what it is and what to do."""
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    with pytest.raises(CommandError, match=sentence):
        graphs.load(path)


@pytest.mark.parametrize("part", [0.3, 0.9, 0.99])
def test_a_file_that_is_cut_off_is_called_so(tmp_path: Path, part: float) -> None:
    """It says how many bytes are missing at least."""
    path = networks.classifier(tmp_path / "a.onnx")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(CommandError, match=r"is cut off: it has \d+ bytes, and at least \d+ are missing"):
        graphs.load(path)


def apart(folder: Path, location: str = "weights.bin") -> Path:
    """Write the small classifier with its weights beside it."""
    path = networks.classifier(folder / "a.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def pointed(path: Path, location: str) -> None:
    """Let the first weights of a network lie elsewhere."""
    model = onnx.load(str(path), load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())


def test_missing_weights_are_named(tmp_path: Path) -> None:
    """A renamed file still asks for the old name: the sentence says which, and where it belongs."""
    path = apart(tmp_path)
    (tmp_path / "weights.bin").rename(tmp_path / "renamed.bin")
    with pytest.raises(
        CommandError, match=f"are in 'weights.bin', which is missing: put that file back into {tmp_path}"
    ):
        graphs.load(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../../weights.bin", "", "link"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    """By its path or by a link: a network reads nothing but its own folder."""
    folder = tmp_path / "inside"
    folder.mkdir()
    path = apart(folder)
    (tmp_path / "weights.bin").write_bytes(b"0" * 10_000)
    (folder / "link").symlink_to(tmp_path / "weights.bin")
    pointed(path, location)
    with pytest.raises(CommandError, match=r"asks for weights outside its folder, .*, which is refused"):
        graphs.load(path)


def test_weights_that_are_cut_off_are_called_so(tmp_path: Path) -> None:
    """The bytes that are asked for are not there."""
    path = apart(tmp_path)
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[:-1])
    with pytest.raises(CommandError, match=r"weights\.bin is cut off: a\.onnx reads bytes \d+ to \d+ of it"):
        graphs.load(path)


def ask(path: Path) -> Any:
    """Return what a network gives."""
    return graphs.run(graphs.session(path), {"pixels": PIXELS})["logits"]


def test_a_large_network_is_stored_with_its_weights_beside_it(tmp_path: Path, monkeypatch: Any) -> None:
    """A small network is stored so under a lowered limit; it answers as before, and can be changed and stored again."""
    path = networks.classifier(tmp_path / "a.onnx", classes=500)
    before = ask(path)
    model = graphs.load(path)
    monkeypatch.setattr(graphs, "MAX_BYTES", 1000)
    for _ in range(2):
        graphs.save(model, path)
        assert external.data_of(path).stat().st_size > path.stat().st_size
        np.testing.assert_array_equal(ask(path), before)
    monkeypatch.undo()
    graphs.save(graphs.load(path), path)
    assert not external.data_of(path).exists()
    np.testing.assert_array_equal(ask(path), before)
