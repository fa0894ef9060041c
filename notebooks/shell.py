"""Runs `modelctl` from a cell: prints its output without this machine's folders, and raises an error on failure."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = Path(os.environ.get("MODELS", ROOT / "models"))
WORK = Path(tempfile.mkdtemp(prefix="notebook-"))
atexit.register(shutil.rmtree, WORK, ignore_errors=True)


def modelctl(line: str) -> None:
    """Run a modelctl command on the repository `MODELS` and print its output.

    Raises:
        RuntimeError: when it fails.

    """
    run(f"-m modelctl {line} --models {MODELS}")


def run(line: str) -> None:
    """Run this Python with a command line and print its output; raises as `modelctl` does."""
    command = [sys.executable, *shlex.split(line)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:  # noqa: S603
        for said in process.stdout or ():
            for folder in (WORK, MODELS, ROOT):
                said = said.replace(f"{folder}/", "")
            print(said.replace(sys.executable, "python"), end="")
    if process.returncode:
        raise RuntimeError(f"it ended with {process.returncode}: {line}")
