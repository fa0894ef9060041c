"""Every notebook runs against a real stack, and is committed with its outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from execute import HERE, clean, execute

NOTEBOOKS = sorted(HERE.glob("*.ipynb"))
MOST_BYTES = 400_000


def code(notebook: Any) -> list[Any]:
    """Return the code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: Any) -> list[set[str]]:
    """Return the kinds of output of each code cell."""
    return [{output.output_type for output in cell.outputs} for cell in code(notebook)]


@pytest.fixture
def servers(stack: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Point notebooks to the stack, and keep them from downloading networks."""
    for name, value in {**stack.environment(), "MODELS": str(stack.models), "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ULTRALYTICS_PYTHON", raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))


@pytest.mark.usefixtures("servers")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path) -> None:
    """No cell fails, and outputs have the committed kinds."""
    committed = nbformat.read(path, as_version=4)
    assert outputs(committed) == outputs(execute(path)), "run notebooks/execute.py, and commit what it writes"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_complete_and_neutral(path: Path) -> None:
    """It ran in one go without errors, is small, and shows nothing of the machine that ran it."""
    text = path.read_text("utf-8")
    notebook = nbformat.reads(text, as_version=4)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any("error" in kinds for kinds in outputs(notebook))
    assert len(text.encode()) < MOST_BYTES
    for folder in ("/home/", "/root/", "/tmp/", "/Users/", f"/{HERE.resolve().parts[1]}/"):
        assert folder not in text
    assert set(re.findall(r"(?:127\.0\.0\.1|localhost):(\d+)", text)) <= {"8001", "8002", "8080"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_with_special_needs_are_guarded(path: Path) -> None:
    """Cells that need the Hub, Ultralytics or TensorRT follow the rule that checks for it."""
    for cell in code(nbformat.read(path, as_version=4)):
        rules = set(re.findall(r"^if needs\.(\w+)\(\):$", cell.source, re.MULTILINE))
        for command, rule in (
            (r"add (finbert|resnet50|rf_detr|rt_detr)\b", "hub"),
            (r"add yolo11n\b", "ultralytics"),
            (r"plan (?!.*--dry-run)\w", "tensorrt"),
        ):
            assert not re.search(rf"modelctl\(f?\"{command}", cell.source) or rule in rules


def test_a_rule_prints_why_a_cell_is_skipped(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Without the Hub, Ultralytics or TensorRT each rule is false, and names the missing part."""
    import needs

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("ULTRALYTICS_PYTHON", raising=False)
    monkeypatch.setattr(needs, "TRTEXEC_FOLDER", "/nowhere")
    monkeypatch.setattr(needs, "find_spec", lambda _: None)
    for rule, word in ((needs.hub, "huggingface.co"), (needs.ultralytics, "Ultralytics"), (needs.tensorrt, "TensorRT")):
        assert rule() is False
        said = capsys.readouterr().out
        assert said.startswith("skipped: needs ")
        assert word in said

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert needs.hub() is False
    assert "PyTorch" in capsys.readouterr().out
    monkeypatch.setattr(needs, "find_spec", lambda _: object())
    monkeypatch.setenv("HF_ENDPOINT", "https://127.0.0.1:1")
    assert needs.hub() is False
    assert "cannot be reached" in capsys.readouterr().out
    assert needs.ultralytics() is True


def test_outputs_use_the_documented_ports_and_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports become the default ones, and folders those of the project."""
    monkeypatch.setenv("GATEWAY_PORT", "23456")
    monkeypatch.setenv("MODELS", "/somewhere/models")
    text = f"http://127.0.0.1:23456/v1 {HERE.parent}/docs /somewhere/models/simple_net 127.0.0.1:234567"
    assert clean(text) == "http://127.0.0.1:8080/v1 docs models/simple_net 127.0.0.1:234567"
