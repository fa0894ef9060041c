"""Log lines that cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import structlog
from app.settings import Settings
from app.telemetry import logging

logging.configure(Settings())
structlog.get_logger("test").info("a line")
print("alive")
"""


def test_a_full_disk_fails_no_request() -> None:
    """The line is lost, and nothing else."""
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.stdout == "alive\n"
