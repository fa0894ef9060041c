"""The rooms import each other in one direction only."""

from __future__ import annotations

import dis
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "modelctl" / "sources"
FORBIDDEN = {
    "app": {"backends", "benchmarks", "modelctl", "stages", "onnxruntime", "pytriton", "torch"},
    "stages": {"app", "backends", "benchmarks", "modelctl", "tritonclient", "triton_python_backend_utils"},
    "modelctl": {"app", "stages", "backends", "benchmarks", "torch"},
    "backends": {"app", "benchmarks", "modelctl", "tritonclient"},
    "benchmarks": {"app", "backends", "torch"},
    "docs": {"benchmarks"},
    "notebooks": {"benchmarks"},
    "training": {"benchmarks"},
    "client": {"app", "backends", "benchmarks", "modelctl", "stages", "tritonclient", "numpy"},
}


def imports(path: Path) -> set[str]:
    """Return the top-level names that a file imports, by its compiled code.

    Not by its syntax tree: to make one fails in Python 3.11 when garbage is collected meanwhile whose end makes another
    (SystemError: AST constructor recursion depth mismatch).
    """
    found: set[str] = set()
    waiting = [compile(path.read_text(), str(path), "exec")]
    while waiting:
        code = waiting.pop()
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        names = (each.argval for each in dis.get_instructions(code) if each.opname == "IMPORT_NAME")
        found |= {name.split(".")[0] for name in names}
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_rooms_are_entered_by_their_doors(room: str) -> None:
    """No file of a room imports what is not its business."""
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        door = {"torch"} if path.is_relative_to(SOURCES) else set()  # reads checkpoints, when asked to
        assert not imports(path) & (FORBIDDEN[room] - door), path


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("modelctl.__main__", {"onnx", "onnxruntime", "pydantic", "shtab", "torch"}),
        ("modelctl.serve", {"onnxruntime", "torch"}),
        ("modelctl.plan", {"onnxruntime", "torch"}),
        ("modelctl.add", {"torch", "transformers"}),
    ],
)
def test_commands_start_without_what_others_need(module: str, absent: set[str]) -> None:
    """The container's Triton has no ONNX Runtime for Python, and PyTorch is only for who adds models from it."""
    script = f"import sys, {module}; print([name for name in sys.argv[1:] if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script, *absent], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_installed_package_has_no_benchmarks() -> None:
    """They measure the project and run from its tree: who installs modelctl needs none of them."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert not [pattern for pattern in found["include"] if fnmatch("benchmarks.gateway", pattern)]


def test_only_one_folder_speaks_grpc() -> None:
    """Nothing in the gateway outside app/triton imports tritonclient or grpc."""
    for path in (ROOT / "app").rglob("*.py"):
        if path.parent.name != "triton":
            assert not imports(path) & {"grpc", "tritonclient"}, path
