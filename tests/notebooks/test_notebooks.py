"""Every notebook runs from top to bottom against a real stack, and is committed with what it answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))


def outputs(notebook: Any) -> list[set[str]]:
    """Return the kinds of output of each code cell."""
    return [{output.output_type for output in cell.outputs} for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, stack: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cell that fails fails the test; what it gives is of the kind that was committed."""
    for name, value in {**stack.environment(), "MODELS": str(stack.models)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    committed = nbformat.read(path, as_version=4)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    assert outputs(committed) == outputs(notebook), "run the notebook again and commit it with its outputs"
