"""An Ultralytics checkpoint -> an ONNX file, exported by the user's own installation of Ultralytics in a child process.

Ultralytics is under AGPL-3.0. It is neither a dependency nor an extra of this project, and this project imports none of
its code.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from modelctl.errors import CommandError
from modelctl.graphs import networks
from modelctl.sources import metadata, onnxfile
from modelctl.sources.draft import Draft, Order

NOTICE = (
    "Ultralytics and the networks made with it are under AGPL-3.0, unless you have a licence of theirs: "
    "whoever offers them over a network must offer the source as well."
)
PROGRAM = """
import sys
from ultralytics import YOLO
print(YOLO(sys.argv[1]).export(format="onnx", dynamic=True, simplify=False, opset=17))
"""
TIMEOUT_S = 1800


def draft(order: Order) -> Draft:
    """Export with the Python that ULTRALYTICS_PYTHON names (default: this one), then read the ONNX file.

    Raises:
        CommandError: when the package is missing or fails, or as `onnxfile.draft`.

    """
    print(f"Notice: {NOTICE}", file=sys.stderr)
    python = os.environ.get("ULTRALYTICS_PYTHON", sys.executable)
    if "/" in python:  # the child process runs in another folder
        python = os.path.abspath(python)  # not resolved: a venv is found by its link to Python
    # The exporter writes beside its input. It downloads published weights, which are named like yolo11n.pt.
    given = Path(order.source)
    source = shutil.copy(given, order.work) if given.is_file() else order.source
    command = [python, "-c", PROGRAM, str(source)]
    try:
        done = subprocess.run(  # noqa: S603 - the user's own Python
            command, cwd=order.work, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"Ultralytics could not be run by {python}: {error}") from error
    if "No module named 'ultralytics'" in done.stderr:
        raise CommandError(
            "The package ultralytics (AGPL-3.0) exports this file and is not installed: "
            "install it where you like, and name that Python in ULTRALYTICS_PYTHON."
        )
    lines = (done.stdout.strip() or " ").splitlines()
    path = order.work / lines[-1].strip()
    if done.returncode or not path.is_file():
        last = (done.stderr.strip() or "it wrote no file").splitlines()[-1]
        raise CommandError(f"Ultralytics could not export {order.source}: {last[:300]}")
    known = {} if order.options.task == "none" else metadata.ultralytics(networks.load(path))
    return onnxfile.from_file(order, path, known)
