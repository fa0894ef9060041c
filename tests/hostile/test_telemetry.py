"""Our libraries report nothing to their makers; `test_bombs` tests what Triton's processes inherit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import importlib, os, sys
class Watch:
    def find_spec(self, name, *_):
        if name == "onnxruntime":
            print(os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
importlib.import_module(sys.argv[1])
import onnxruntime
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        *(
            "modelctl.commands.verify",
            "modelctl.sources.addition",
            "modelctl.graphs.precision",
            "modelctl.reference.model",
        ),
        *("benchmarks.tasks.peers", "benchmarks.text_batching", "training.onnx_store"),
    ],
)
def test_onnx_runtimes_telemetry_is_off_before_its_import(module: str) -> None:
    """Every module of ours that imports ONNX Runtime switches its telemetry off first."""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, module], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1"]
