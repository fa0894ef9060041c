"""Runs notebooks against the running servers and saves them with their outputs.

    ./dev_start.sh                                # in another terminal
    .venv/bin/python notebooks/execute.py         # all notebooks, or those named: 03_image_classification

This machine's folders and ports are replaced by the defaults. The tests run the notebooks too, and save nothing.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import addresses
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
CELL_S = 120


def execute(path: Path) -> Any:
    """Return a notebook after all its cells have run in a fresh kernel.

    Raises:
        nbclient.exceptions.CellExecutionError: when a cell fails.

    """
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        timeout=CELL_S,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(HERE)}},
    )
    client.execute()
    return notebook


def clean(text: str) -> str:
    """Return a notebook's text without this machine's folders and ports."""
    for name, usual in addresses.PORTS.items():
        text = re.sub(rf"(127\.0\.0\.1|localhost):{addresses.port(name)}\b", rf"\1:{usual}", text)
    models = os.environ.get("MODELS")
    for folder, written in ((models, "models"), (f"{HERE.parent}/", ""), (str(HERE.parent), ".")):
        text = text.replace(folder, written) if folder else text
    return text


def main(names: list[str]) -> None:
    """Run the named notebooks, or all, and save them."""
    paths = [HERE / f"{name.removesuffix('.ipynb')}.ipynb" for name in names] or sorted(HERE.glob("*.ipynb"))
    with tempfile.TemporaryDirectory() as profile:
        os.environ["IPYTHONDIR"] = profile  # without the user's own start-up files
        for path in paths:
            print(path.name, flush=True)
            text = nbformat.writes(execute(path))  # type: ignore[no-untyped-call]
            path.write_text(clean(text) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
