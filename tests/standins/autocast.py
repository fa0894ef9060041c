"""Stands in for a Python that has NVIDIA ModelOpt: called as `python -m modelopt.onnx.autocast OPTION...`.

The options are those of nvidia.github.io/Model-Optimizer/guides/8_autocast.html.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

parser = argparse.ArgumentParser(prog="autocast")
parser.add_argument("--onnx_path", required=True)
parser.add_argument("--output_path")
parser.add_argument("--low_precision_type", choices=["fp16", "bf16"], default="fp16")
parser.add_argument("--calibration_data")
parser.add_argument("--keep_io_types", action="store_true")

assert sys.argv[1:3] == ["-m", "modelopt.onnx.autocast"], sys.argv
with (Path(os.environ["STAND_IN"]) / "calls.txt").open("a") as calls:
    calls.write(" ".join(["python", *sys.argv[1:]]) + "\n")
arguments = parser.parse_args(sys.argv[3:])
model = onnx.load(arguments.onnx_path)
samples = np.load(Path(arguments.calibration_data) / "samples.npz")
assert sorted(samples) == sorted(entry.name for entry in model.graph.input)
for tensor in model.graph.initializer:
    if tensor.data_type == onnx.TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
for entry in [] if arguments.keep_io_types else [*model.graph.input, *model.graph.output]:
    entry.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
onnx.save(model, arguments.output_path)
