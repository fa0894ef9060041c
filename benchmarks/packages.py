"""Installs the peers and tools of the benches from lock files with hashes, each into a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from modelctl.errors import CommandError

SET_UP_S = 900


def install(lock: Path, *, python: str = sys.executable, target: Path | None = None) -> None:
    """Install a lock file's packages into the environment of `python`, or without their dependencies into `target`.

    Raises:
        CommandError: when that fails.

    """
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is not None:
        words = [uv, "pip", "install", "--quiet", "--python", python]
    else:
        words = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check"]
    if target is not None:
        words += ["--no-deps", "--target", str(target)]
    run([*words, "--require-hashes", "--requirement", str(lock)])


def run(words: list[str]) -> None:
    """Run a set-up program; raises CommandError with the end of its output when it fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SET_UP_S, check=False)  # noqa: S603 - ours
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(words[:4])} took longer than {SET_UP_S} s.") from error
    if done.returncode:
        raise CommandError(f"{' '.join(words[:4])} failed: {done.stderr.strip()[-500:]}")
