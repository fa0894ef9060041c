"""What the tests of sources write and read."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

from PIL import Image
from ruamel.yaml import YAML


def png(array: Any) -> bytes:
    """Encode without loss, so that both sides see the same pixels."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def contents(folder: Path) -> dict[str, str]:
    """Return a hash of every file below a folder, hidden ones too, and the names of empty folders."""
    made = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        made[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return made


def labels(folder: Path, count: int) -> str:
    """Write a file of labels; return its path."""
    path = folder / f"labels{count}.txt"
    path.write_text("".join(f"label {number}\n" for number in range(count)))
    return str(path)


def spec(models: Path, name: str) -> Any:
    """Return a model's model.yaml as plain data."""
    return YAML(typ="safe").load((models / name / "model.yaml").read_text())
