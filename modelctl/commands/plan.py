"""`modelctl plan`: builds TensorRT plans; it needs TensorRT and a GPU, as in the container.

    model.yaml, model.onnx --> the present plan, or one from the cache, or a new one --> model.plan, model.plan.json

A plan is used only when its inputs, outputs and precision match the configuration. After a failure the previous plan,
or the ONNX network, stays in use (`modelctl.plans.choice` decides at the next start).
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
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="models (default: all whose model.yaml has network.tensorrt)"
    )
    add_models(parser)
    parser.add_argument(
        "--cache", type=Path, default=Path(".triton/plans"), help="folder of earlier plans, to be used again"
    )
    parser.add_argument("--time", action="store_true", help="then time each plan alone")
    parser.add_argument("--dry-run", action="store_true", help="only print the command lines; works without TensorRT")
    add_json(parser, "a list of objects, one for each plan or dry run,")
    parser.add_argument(
        "--tensorrt-version",
        metavar="VERSION",
        help="with --dry-run: TensorRT version to print command lines for (default: the installed one, else 10 and 11)",
    )
    parser.add_argument(
        "--modelopt-python",
        default=os.environ.get("MODELOPT_PYTHON", sys.executable),
        metavar="PYTHON",
        help="Python with NVIDIA ModelOpt, needed for fp16 (default: $MODELOPT_PYTHON, else this Python)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Bring every plan up to date; return 1 when one could not be."""
    from modelctl.plans import building  # imports ONNX, which takes a quarter of a second

    with redirect_stdout(sys.stderr if arguments.json else sys.stdout):
        rows = building.run(arguments)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    return int(any("error" in row for row in rows))
