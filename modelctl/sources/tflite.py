"""A TensorFlow Lite file -> an ONNX file, converted by tf2onnx, which `onnxfile` reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from modelctl.errors import CommandError
from modelctl.sources import onnxfile
from modelctl.sources.draft import Draft, Order

OPSET = 17
TIMEOUT_S = 600


def draft(order: Order) -> Draft:
    """Convert the file with the Python that TF2ONNX_PYTHON names (default: this one), and return its draft.

    Raises:
        CommandError: when tf2onnx is missing or fails, or as `onnxfile.draft`.

    """
    path = Path(order.source)
    if not path.is_file():
        raise CommandError(f"There is no file {path}: give the path of one.")
    made = order.work / f"{path.stem}.onnx"
    python = os.environ.get("TF2ONNX_PYTHON", sys.executable)
    command = [python, "-m", "tf2onnx.convert", "--tflite", str(path), "--output", str(made), "--opset", str(OPSET)]
    try:
        done = subprocess.run(  # noqa: S603 - the user's own Python
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"tf2onnx could not be run by {python}: {error}") from error
    if "No module named" in done.stderr:
        raise CommandError(
            f"{path} is of TensorFlow Lite, and tf2onnx, which converts it, is not installed: install tf2onnx and "
            "tensorflow in a Python that TF2ONNX_PYTHON names, or convert it elsewhere by python -m tf2onnx.convert "
            f"--tflite {path.name} --output {path.stem}.onnx --opset {OPSET} and add that file."
        )
    if done.returncode or not made.is_file():
        last = (done.stderr.strip() or "it wrote no file").splitlines()[-1]
        raise CommandError(f"tf2onnx could not convert {path}: {last[:300]}")
    return onnxfile.from_path(order, made, ["Converted from TensorFlow Lite by tf2onnx."])
