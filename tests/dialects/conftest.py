"""The real clients, each in its own virtual environment, because they need older packages than the gateway."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CLIENTS = HERE.parent.parent / ".triton" / "clients"
SAMPLES = HERE.parent.parent / "docs" / "samples"


def environment(name: str) -> Path:
    """Return the Python of a client's environment; make it once per lock file."""
    lock = HERE / f"requirements-{name}.txt"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = CLIENTS / f"{name}-{digest}"
    CLIENTS.mkdir(parents=True, exist_ok=True)
    with (CLIENTS / f"{name}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(folder, lock)
            (folder / "complete").touch()
    return folder / "bin" / "python"


def _install(folder: Path, lock: Path) -> None:
    python = folder / "bin" / "python"
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if uv is not None:
        commands = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
            [uv, "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", str(lock)],
        ]
    else:
        commands = [
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(lock)],
        ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def client_python() -> Callable[[str], Path]:
    """Return a function that gives the Python of a client's environment."""
    return environment


@pytest.fixture(scope="session")
def samples() -> Path:
    """Return the folder of the sample images."""
    return SAMPLES
