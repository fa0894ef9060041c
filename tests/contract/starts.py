"""Which tests a fast run leaves out, and a guard: in a fast run, no test can start a server.

`./dev_test.sh --fast` runs the tests that are marked neither `server` nor `slow` nor `alone`. Most marks are set here:
by the fixtures of a test, and by what its module imports or runs. The guard refuses what they have missed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path, PurePath

import pytest

STARTERS = {
    **dict.fromkeys(("make_stack", "make_proof", "shared", "browser"), "server"),
    **dict.fromkeys(("client_python", "services", "site", "wheel"), "slow"),
}
"""Fixtures that start Triton, a gateway or a browser, or that install or build something, and the mark of each."""
EXECUTABLES = ("tritonserver", "chromium", "chromium-browser", "google-chrome", "docker", "docker-compose", "uv", "wrk")
"""Programs that only marked tests start."""
MODULES = {"app": (), "benchmarks": (), "modelctl": ("serve", "up", "bench"), "pip": (), "venv": (), "zensical": ()}
"""Modules that only marked tests run by `python -m`; where commands are named, only these."""
HARMLESS = ("--help", "-h")
IMPORTS_TORCH = re.compile(r"^\s*(?:import|from) (?:torch|training|checkpoints|networks)\b", re.MULTILINE)
RUNS_COMMANDS = re.compile(r'sys\.executable, "-m"')
MARKED = re.compile(r"^@pytest\.mark\.(?:server|slow)\b", re.MULTILINE)
MARKS = ("server", "slow", "alone")

_unmarked: str | None = None
"""The running test of a fast run; None in other runs."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave slow modules out of a fast run before they import torch, which alone takes seconds."""
    is_module = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if is_module and _is_fast(config) and _is_slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses a fixture that starts something, itself or by another fixture, and modules that take seconds."""
    for item in items:
        if _is_slow(item.path):
            item.add_marker("slow")
        for mark in {STARTERS[name] for name in getattr(item, "fixturenames", ()) if name in STARTERS}:
            item.add_marker(mark)


def _is_fast(config: pytest.Config) -> bool:
    return all(f"not {mark}" in config.option.markexpr for mark in MARKS)


@cache
def _is_slow(path: Path) -> bool:
    """Return whether a module imports torch, or runs commands without marks on the tests that run them."""
    text = path.read_text("utf-8")
    return bool(IMPORTS_TORCH.search(text) or (RUNS_COMMANDS.search(text) and not MARKED.search(text)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Remember the running test of a fast run, which may start no server."""
    global _unmarked
    _unmarked = item.nodeid if _is_fast(item.config) else None
    try:
        return (yield)
    finally:
        _unmarked = None


def starts(command: Iterable[object]) -> str | None:
    """Return the server or tool that a command line starts; None for a command that a fast run allows."""
    words = [os.fsdecode(word) if isinstance(word, bytes) else str(word) for word in command]
    if not words or any(word in HARMLESS for word in words):
        return None
    program = PurePath(words[0]).name
    if program in EXECUTABLES:
        return program
    for flag, module, following in zip(["-m", *words], [program, *words[1:]], [*words[1:], "", ""], strict=False):
        if flag == "-m" and module in MODULES and (not MODULES[module] or following in MODULES[module]):
            return module
    return None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event == "subprocess.Popen" and _unmarked is not None:
        command = arguments[1]
        started = starts([command] if isinstance(command, str | bytes) else command)  # type: ignore[arg-type]
        if started is not None:
            raise RuntimeError(f"{_unmarked} starts {started}: mark it `server` or `slow`.")


sys.addaudithook(_audit)
