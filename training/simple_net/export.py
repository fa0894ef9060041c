"""Writes the smallest tensor model; it only shows that tensors pass through Triton.

    python -m training.simple_net.export models/simple_net/1

    `INPUT__0` FP32 [N, 2] -> Linear 2 to 4 -> ReLU -> Linear 4 to 2 -> `OUTPUT__0` FP32 [N, 2]

as `model.onnx` and, for Triton's PyTorch backend, as `model.pt` (TorchScript). The tensor names follow that backend's
convention. The weights come from a fixed seed and mean nothing, and the ONNX bytes are the same every time. Every ONNX
Runtime since 1.12 reads opset 17 and IR version 8.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

INPUT, OUTPUT = "INPUT__0", "OUTPUT__0"
SEED, INPUTS, HIDDEN, OUTPUTS = 0, 2, 4, 2


def weights() -> dict[str, npt.NDArray[np.float32]]:
    """Return the two layers' weights [in, out] and biases [out], rounded to 3 decimals."""
    random = np.random.default_rng(SEED)
    shapes = {
        "hidden.weight": (INPUTS, HIDDEN),
        "hidden.bias": (HIDDEN,),
        "output.weight": (HIDDEN, OUTPUTS),
        "output.bias": (OUTPUTS,),
    }
    return {name: random.uniform(-1, 1, shape).round(3).astype(np.float32) for name, shape in shapes.items()}


def build() -> onnx.ModelProto:
    """Return the network as a checked ONNX model."""
    nodes = [
        helper.make_node("Gemm", [INPUT, "hidden.weight", "hidden.bias"], ["hidden"], "hidden"),
        helper.make_node("Relu", ["hidden"], ["active"], "active"),
        helper.make_node("Gemm", ["active", "output.weight", "output.bias"], [OUTPUT], "output"),
    ]
    graph = helper.make_graph(
        nodes,
        "simple_net",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", INPUTS])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", OUTPUTS])],
        [numpy_helper.from_array(value, name) for name, value in weights().items()],
    )
    model = helper.make_model(
        graph, producer_name="training.simple_net", opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def build_torchscript() -> Any:
    """Return the same network as TorchScript; only this function needs PyTorch."""
    import torch

    given = {name: torch.from_numpy(value) for name, value in weights().items()}
    layers = {"hidden": torch.nn.Linear(INPUTS, HIDDEN), "output": torch.nn.Linear(HIDDEN, OUTPUTS)}
    for name, layer in layers.items():
        layer.load_state_dict({"weight": given[f"{name}.weight"].T, "bias": given[f"{name}.bias"]})
    network = torch.nn.Sequential(layers["hidden"], torch.nn.ReLU(), layers["output"]).eval()
    return torch.jit.trace(network, torch.zeros(1, INPUTS))


def main() -> None:
    """Write both files to the given folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    onnx.save(build(), folder / "model.onnx")
    build_torchscript().save(folder / "model.pt")


if __name__ == "__main__":
    main()
