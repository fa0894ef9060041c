"""An Ultralytics checkpoint -> an ONNX file, by the user's own installation of that package, in a process of its own.

The package is under AGPL-3.0. It is neither a dependency nor an extra of this project, and nothing of it is imported
here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from modelctl.errors import CommandError
from modelctl.graphs import networks
from modelctl.sources import onnxfile
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
    """Export by `ultralytics` of the Python that ULTRALYTICS_PYTHON names (default: this one).

    Raises:
        CommandError: when the package is missing, or when it fails.

    """
    print(f"Notice: {NOTICE}", file=sys.stderr)
    python = os.environ.get("ULTRALYTICS_PYTHON", sys.executable)
    if "/" in python:  # it runs in another folder
        python = os.path.abspath(python)  # a venv's python is a link, which must not be followed
    # The exporter writes beside its input, and downloads what it knows by name (yolo11n.pt).
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
    return onnxfile.from_file(order, path, onnxfile.ultralytics(networks.load(path)))
