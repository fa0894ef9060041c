"""The rooms import each other in one direction only."""

from __future__ import annotations

import dis
import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import CodeType

import pytest

from modelctl.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "modelctl" / "sources"
FORBIDDEN = {
    "app": {"onnxruntime", "pytriton", "torch"},
    "stages": {"tritonclient", "triton_python_backend_utils"},
    "modelctl": {"torch"},
    "backends": {"tritonclient"},
    "benchmarks": {"torch"},
    "client": {"tritonclient", "numpy"},
}
"""Packages of others that a top-level folder never imports."""


@cache
def code_of(path: Path) -> list[CodeType]:
    """Return the compiled code of a file: of its module, and of every class and function in it.

    Not its syntax tree: to make one fails in Python 3.11 when garbage is collected meanwhile whose end makes another
    (SystemError: AST constructor recursion depth mismatch).
    """
    codes = [compile(path.read_text(), str(path), "exec")]
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return codes


def imports(path: Path) -> set[str]:
    """Return the top-level names that a file imports."""
    found: set[str] = set()
    for code in code_of(path):
        names = (each.argval for each in dis.get_instructions(code) if each.opname == "IMPORT_NAME")
        found |= {name.split(".")[0] for name in names}
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_rooms_import_only_allowed_modules(room: str) -> None:
    """No file of a folder imports a package that its folder may not."""
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        door = {"torch"} if path.is_relative_to(SOURCES) else set()  # reads checkpoints, when asked to
        assert not imports(path) & (FORBIDDEN[room] - door), path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("modelctl.__main__", {"onnx", "onnxruntime", "pydantic", "shtab", "torch"}),
        ("modelctl.commands.serve", {"onnxruntime", "torch"}),
        ("modelctl.plans.building", {"onnxruntime", "torch"}),
        ("modelctl.commands.add", {"torch", "transformers"}),
    ],
)
def test_commands_start_without_heavy_imports(module: str, absent: set[str]) -> None:
    """Triton's container lacks ONNX Runtime for Python, and few users have PyTorch."""
    script = f"import sys, {module}; print([name for name in sys.argv[1:] if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script, *absent], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_installed_package_has_no_benchmarks() -> None:
    """They measure the project and run from its tree."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert not [pattern for pattern in found["include"] if fnmatch("benchmarks.gateway", pattern)]


def test_only_one_folder_speaks_grpc() -> None:
    """Nothing in the gateway outside app/triton imports tritonclient or grpc."""
    for path in (ROOT / "app").rglob("*.py"):
        if path.parent.name != "triton":
            assert not imports(path) & {"grpc", "tritonclient"}, path


ARROWS: dict[str, dict[str, set[str]]] = {
    # package: {room or loose module: what it imports of the same package}
    "modelctl": {
        "__main__": {"cli", "configuration", "console"},
        "cli": {"errors"},  # and the commands, by their names
        "commands": {
            *("bench", "configuration", "console", "embedded", "errors", "lint", "models", "options", "plans"),
            *("reference", "sources"),
        },
        "bench": {"console", "embedded", "errors", "lint", "models", "plans", "reference"},
        "sources": {"console", "embedded", "errors", "graphs", "lint", "models", "reference"},
        "reference": {"embedded", "errors", "models"},
        "lint": {"console", "plans"},
        "options": {"embedded"},
        "embedded": {"configuration", "console", "errors", "models", "plans"},
        "plans": {"errors", "graphs", "models"},
        "graphs": {"errors"},
        "models": {"errors"},
        "configuration": {"errors"},
        "console": {"errors"},
        "errors": set(),
    },
    "app": {
        "__main__": {"http", "security", "settings", "telemetry"},
        "main": {"api", "drawing", "http", "memory", "scheduling", "settings", "telemetry", "triton"},
        "api": {
            *("context", "dialects", "drawing", "errors", "http", "memory", "scheduling", "security", "settings"),
            *("tasks", "telemetry", "triton"),
        },
        "scheduling": {"context", "errors", "memory", "telemetry", "triton"},
        "triton": {"context", "errors", "tasks", "telemetry"},
        "dialects": {"errors", "http"},
        "tasks": {"drawing"},
        "http": {"context", "errors", "memory", "settings", "telemetry"},
        "drawing": {"context", "errors", "memory"},
        "security": {"errors", "settings"},
        "telemetry": {"context", "settings"},
        "context": {"errors", "settings"},
        "memory": {"errors"},
        "settings": set(),
        "errors": set(),
    },
}
"""Which rooms each room of a package imports; they make no circle either, so each can be read by itself."""


HOUSE: dict[str, set[str]] = {
    "app": set(),
    "stages": set(),
    "backends": {"stages"},
    "modelctl": set(),
    "benchmarks": {
        *("modelctl.bench", "modelctl.cli", "modelctl.console", "modelctl.embedded", "modelctl.errors"),
        *("modelctl.models", "stages"),
    },
    "training": {"modelctl.graphs"},
    "notebooks": {"training"},
    "client": set(),
    "docs": {"app"},
}
"""Which other top-level folders, or rooms of modelctl, each folder imports."""

MAX_ARGUMENTS = 6


@cache
def modules(package: str) -> dict[str, set[str]]:
    """Return the imports of each module of a package within the package, also those for type checkers."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((ROOT / package).rglob("*.py"))
    }
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        imported = set()
        for code in code_of(path):
            module = ""
            for each in dis.get_instructions(code):
                if each.opname == "IMPORT_NAME":
                    module = each.argval
                    imported.add(module)
                elif each.opname == "IMPORT_FROM":
                    imported.add(f"{module}.{each.argval}")
        found[name] = {each for each in imported & files.keys() if each not in (name, package)}
    return found


def outside(folder: str) -> set[str]:
    """Return which other top-level folders, or rooms of modelctl, the files and notebooks of a folder import."""
    codes = [code for path in (ROOT / folder).rglob("*.py") for code in code_of(path)]
    names = {each.argval for code in codes for each in dis.get_instructions(code) if each.opname == "IMPORT_NAME"}
    for path in (ROOT / folder).rglob("*.ipynb"):
        cells = [cell["source"] for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        names |= set(re.findall(r"^(?:from|import) ([\w.]+)", "\n".join("".join(cell) for cell in cells), re.MULTILINE))
    parts = [name.split(".") for name in names]
    return {
        ".".join(each[:2]) if each[0] == "modelctl" else each[0]
        for each in parts
        if each[0] in HOUSE.keys() - {folder} and each != ["modelctl"]
    }


@pytest.mark.parametrize("folder", HOUSE)
def test_top_level_folders_import_each_other_as_the_table_says(folder: str) -> None:
    """Training, benchmarks and notebooks too; tests may import anything."""
    assert outside(folder) == HOUSE[folder]


@pytest.mark.parametrize("folder", sorted(HOUSE.keys() - {"client", "docs", "notebooks"}))
def test_no_modules_import_each_other_in_a_circle(folder: str) -> None:
    """Of no top-level folder."""
    assert not circle(modules(folder))


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Return the modules of a cycle of imports; empty when there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("package", ARROWS)
def test_the_rooms_of_a_package_make_no_circle(package: str) -> None:
    """Whoever reads a room needs the rooms below it only."""
    assert not circle(ARROWS[package])


@pytest.mark.parametrize("package", ARROWS)
def test_rooms_of_a_package_import_each_other_as_the_table_says(package: str) -> None:
    """A new arrow is a decision: add it to the table, or avoid it."""
    arrows: dict[str, set[str]] = {}
    for module, imported in modules(package).items():
        rooms = [name.split(".")[1] for name in (module, *imported) if name != package]
        if rooms:
            arrows.setdefault(rooms[0], set()).update(room for room in rooms[1:] if room != rooms[0])
    assert arrows == ARROWS[package]


MAX_LOOSE_FILES, MAX_COMMAND_LINES = 7, 100


def test_modelctl_is_made_of_rooms() -> None:
    """Few files lie outside its rooms."""
    assert len(list((ROOT / "modelctl").glob("*.py"))) <= MAX_LOOSE_FILES


def test_every_command_is_one_file_that_only_the_command_line_imports() -> None:
    """Code that several commands share belongs to a subject, or to `modelctl.options`."""
    commands = {path.stem for path in (ROOT / "modelctl" / "commands").glob("*.py")} - {"__init__"}
    assert commands == set(COMMANDS)
    found = modules("modelctl")
    importers = {name for name, imported in found.items() if any(".commands." in f"{each}." for each in imported)}
    assert importers == set()
    for path in (ROOT / "modelctl" / "commands").glob("*.py"):
        assert len(path.read_text().splitlines()) <= MAX_COMMAND_LINES, path


MAX_LINES = 350
LONG_FILES: dict[str, str] = {}
"""Longer files, each with its reason."""


def test_files_are_short() -> None:
    """A longer file is split by subject, or says here why not."""
    files = [path for folder in HOUSE for path in (ROOT / folder).rglob("*.py")]
    long = {str(path.relative_to(ROOT)) for path in files if len(path.read_text().splitlines()) > MAX_LINES}
    assert long == set(LONG_FILES)


def test_no_function_of_the_gateway_takes_many_loose_values() -> None:
    """Values that belong together are one object, such as a `Question`."""
    for path in sorted((ROOT / "app").rglob("*.py")):
        for code in code_of(path):
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            assert len([name for name in names if name != "self"]) <= MAX_ARGUMENTS, (path, code.co_qualname)
