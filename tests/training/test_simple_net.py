"""The smallest tensor model equals its export, and computes the values of plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from training.simple_net.export import build, weights

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "models/simple_net/1/model.onnx"
RECIPE = ROOT / "modelctl/recipes/simple_net.onnx"


def test_the_shipped_file_is_what_the_export_makes() -> None:
    assert build().SerializeToString() == SHIPPED.read_bytes()
    assert RECIPE.read_bytes() == SHIPPED.read_bytes()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_the_shipped_network_equals_plain_numpy() -> None:
    given = weights()
    numbers = np.array([[1, 2], [-3, 0.5], [0, 0]], np.float32)
    hidden = np.maximum(numbers @ given["hidden.weight"] + given["hidden.bias"], 0)
    expected = hidden @ given["output.weight"] + given["output.bias"]
    session = onnxruntime.InferenceSession(SHIPPED, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["OUTPUT__0"], {"INPUT__0": numbers})[0], expected, rtol=1e-5)
    scripted = torch.jit.load(SHIPPED.with_suffix(".pt"))
    np.testing.assert_allclose(scripted(torch.from_numpy(numbers)).detach().numpy(), expected, rtol=1e-5)
