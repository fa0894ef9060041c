"""`modelctl plan`: builds TensorRT plans where TensorRT and a GPU are, in the container.

    model.yaml, model.onnx --> a plan that is there, or in the cache, or is built now --> model.plan, model.plan.json

A plan is taken only when its inputs, outputs and precision are as the configuration says. When something fails, what
was served goes on: the plan of before, or ONNX (`modelctl.plans.choice` decides at the next start).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path

from modelctl.options import add_json, add_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="models (default: all with tensorrt in model.yaml)")
    add_models(parser)
    parser.add_argument(
        "--cache", type=Path, default=Path(".triton/plans"), help="folder of plans that were built before"
    )
    parser.add_argument("--time", action="store_true", help="then run each plan by itself, and print how fast it is")
    parser.add_argument("--dry-run", action="store_true", help="print the command lines only; needs no TensorRT")
    add_json(parser, "a list of objects, one for each plan or dry run,")
    parser.add_argument(
        "--tensorrt-version",
        metavar="VERSION",
        help="whose command lines to print (default: what is here, else 10 and 11)",
    )
    parser.add_argument(
        "--modelopt-python",
        default=os.environ.get("MODELOPT_PYTHON", sys.executable),
        metavar="PYTHON",
        help="the Python that has NVIDIA ModelOpt, for precision fp16 (default: $MODELOPT_PYTHON, else this one)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Bring every plan up to date; return 1 when one could not be."""
    from modelctl.plans import building  # imports ONNX, which takes a quarter of a second

    with redirect_stdout(sys.stderr if arguments.json else sys.stdout):
        rows = building.run(arguments)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    return int(any("error" in row for row in rows))
