"""The shipped detector can be rebuilt from its own weights."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from training.detector.export import export, served

SHIPPED = Path(__file__).parents[2] / "models/lite_detector_network/1/model.onnx"


@pytest.mark.filterwarnings("ignore:Constant folding:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's older exporter, which made the shipped file
def test_the_shipped_file_is_made_again_from_its_own_weights(tmp_path: Path) -> None:
    export(SHIPPED, tmp_path / "float32.onnx")
    made, shipped = served(tmp_path / "float32.onnx"), onnx.load(SHIPPED)
    # Another PyTorch may name its nodes otherwise; the weights and the operators stay.
    assert [node.op_type for node in made.graph.node] == [node.op_type for node in shipped.graph.node]
    assert list(made.graph.initializer) == list(shipped.graph.initializer)
